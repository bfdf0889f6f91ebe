"""Mutations of a protobuf message by field, with every length made right again. Needs no schema. Used by `mutation`.

Format: https://protobuf.dev/programming-guides/encoding/
"""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Bytewise = Callable[[bytes], bytes]

_BETWEEN = re.compile(rb"[^0-9A-Za-z]")
_VARINTS = (0, 1, 2, 3, 127, 128, 0o644, 1 << 31, (1 << 32) - 1, (1 << 63) - 1, (1 << 64) - 1)
_DOUBLES = tuple(bytes.fromhex(word) for word in ("0" * 16, "0000000000000040", "000000000000f07f", "000000000000f0bf"))


def typed(piece: bytes, chance: random.Random, bytewise: Bytewise) -> bytes:
    """Mostly with one character that can be typed put in, out, or in another's place: most texts take nothing else."""
    if chance.random() < 0.4:
        return bytewise(piece)
    at = chance.randint(0, len(piece))
    if chance.random() < 0.5:  # what a text is, its beginning says, and that of each of its parts
        begins = (0, *(match.end() for match in _BETWEEN.finditer(piece)))
        at = min(chance.choice(begins) + chance.randint(0, 2), len(piece))
    first, last = (0x30, 0x39) if piece.isdigit() else (0x61, 0x7A)
    new = bytes([chance.randint(first, last) if chance.random() < 0.5 else chance.randint(0x20, 0x7E)])
    match chance.randrange(4):
        case 0:
            return piece[:at] + new + piece[at:]
        case 1:
            return piece[:at] + piece[at + 1 :]
        case _:
            return piece[:at] + new + piece[at + 1 :]


@dataclass(slots=True)
class Field:
    number: int
    wire_type: int
    payload: bytes  # of a varint its bytes, of a length-delimited field what follows the length

    def encoded(self) -> bytes:
        length = varint(len(self.payload)) if self.wire_type == 2 else b""
        return varint(self.number << 3 | self.wire_type) + length + self.payload


def changed(data: bytes, words: Sequence[bytes], chance: random.Random, bytewise: Bytewise) -> bytes:
    """One field changed, taken away, said twice, given another's content, or added."""
    found = fields(data)
    if not found:
        return bytewise(data)
    at = chance.randrange(len(found))
    field = found[at]
    kind = chance.random()
    if kind < 0.1:
        del found[at]
    elif kind < 0.15:
        found.insert(at, field)
    elif kind < 0.25:
        other = chance.choice(found)
        found[at] = Field(field.number, other.wire_type, other.payload)
    elif kind < 0.35:
        found.insert(at, _new(words, chance))
    else:
        found[at] = Field(field.number, field.wire_type, _payload(field, words, chance, bytewise))
    return b"".join(field.encoded() for field in found)


def _new(words: Sequence[bytes], chance: random.Random) -> Field:
    number = chance.randint(1, 24)
    match chance.randrange(3):
        case 0:
            return Field(number, 0, varint(chance.choice(_VARINTS)))
        case 1:
            return Field(number, 1, chance.choice(_DOUBLES))
        case _:
            return Field(number, 2, chance.choice(words) if words else b"")


def _payload(field: Field, words: Sequence[bytes], chance: random.Random, bytewise: Bytewise) -> bytes:
    match field.wire_type:
        case 0:
            return varint(chance.choice(_VARINTS) if chance.random() < 0.7 else chance.getrandbits(64))
        case 1:
            return chance.choice(_DOUBLES) if chance.random() < 0.7 else chance.randbytes(8)
        case 5:
            return chance.randbytes(4)
        case _:
            # A text can look like a message by accident; then it is changed as a text now and then.
            if chance.random() < 0.7 and fields(field.payload):
                return changed(field.payload, words, chance, bytewise)
            if words and chance.random() < 0.2:
                return chance.choice(words)
            return typed(field.payload, chance, bytewise)


def fields(data: bytes) -> list[Field] | None:
    """None for what is no message."""
    found = []
    position = 0
    while position < len(data):
        begin, position = position, _behind_varint(data, position)
        tag = _value(data[begin:position])
        begin = position
        match tag & 7:
            case 0:
                position = _behind_varint(data, position)
            case 1:
                position += 8
            case 5:
                position += 4
            case 2:
                position = _behind_varint(data, position)
                begin, position = position, position + _value(data[begin:position])
            case _:
                return None
        if position > len(data) or not tag >> 3:
            return None
        found.append(Field(tag >> 3, tag & 7, data[begin:position]))
    return found


def _behind_varint(data: bytes, position: int) -> int:
    while position < len(data) and data[position] & 0x80:
        position += 1
    return position + 1


def _value(encoded: bytes) -> int:
    return sum((byte & 0x7F) << 7 * index for index, byte in enumerate(encoded))


def varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
