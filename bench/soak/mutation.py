"""One change to an input that mostly keeps its framing, so that it comes past the first line of a parser.

Texts (JSON, YAML, Rego, lines) change by value, by item between brackets, by line and by indented block; protobuf by
field. One change in ten is to bytes wherever they are. What bytes turn into comes from the driver: `bytewise` is
libFuzzer's own mutation in `guided`. Must never judge an input.
"""

import random
import re
from collections.abc import Sequence

from bench.soak import protobuf
from bench.soak.target import Shape, Target

Span = tuple[int, int]

_TOKEN = re.compile(rb'"(?:[^"\\\n]|\\.)*"|[\w.+/-]+|[^\w\s]', re.DOTALL)
_CLOSING = {b"[": b"]", b"{": b"}", b"(": b")"}
_NUMBER = re.compile(rb"-?\d+(\.\d+)?")
_NUMBERS = (b"0", b"1", b"-1", b"255", b"4096", b"2147483648", b"9223372036854775808", b"0.5", b"1e9")


class Accepted:
    """Inputs that came through and reached something new, the seeds first: what begins with one is often accepted too.

    Most inputs that are worth keeping are refused, and so is nearly all that comes of those.
    """

    def __init__(self, target: Target, chance: random.Random) -> None:
        self._seeds = target.seeds
        self._found = [*target.seeds]
        self._chance = chance

    def add(self, data: bytes) -> None:
        self._found.append(data)

    def one(self) -> bytes:
        """What was found last leads on more often than what has been tried for long."""
        recent = -1 - min(int(self._chance.expovariate(0.5)), len(self._found) - 1)
        match self._chance.randrange(3):
            case 0:
                return self._found[recent]
            case 1:
                return self._chance.choice(self._seeds)
            case _:
                return self._chance.choice(self._found)


def mutated(target: Target, data: bytes, chance: random.Random, bytewise: protobuf.Bytewise) -> bytes:
    """`data` with one change; the caller cuts it where it has become too long."""
    if target.shape is Shape.BYTES or not data or chance.random() < 0.1:
        return bytewise(data)
    return (_text if target.shape is Shape.TEXT else protobuf.changed)(data, target.words, chance, bytewise)


def _text(data: bytes, words: Sequence[bytes], chance: random.Random, bytewise: protobuf.Bytewise) -> bytes:
    kind = chance.random()
    if kind < 0.1:
        return _rearranged(data, _lines(data), b"", chance)
    if kind < 0.2:
        return _rearranged(data, _blocks(data), b"", chance)
    tokens = [match.span() for match in _TOKEN.finditer(data)]
    if kind < 0.35:
        return _rearranged(data, _items(data, tokens), b",", chance)
    values = [(begin, end) for begin, end in tokens if _is_value(data, begin, end)]
    chosen = tokens if kind < 0.45 or not values else values
    if not chosen:
        return bytewise(data)
    begin, end = chance.choice(chosen)
    other = chance.choice(chosen)
    return data[:begin] + _value(data[begin:end], data[slice(*other)], words, chance, bytewise) + data[end:]


def _is_value(data: bytes, begin: int, end: int) -> bool:
    """Neither punctuation nor a key: what has an unknown key is mostly refused for that alone."""
    return (end - begin > 1 or data[begin:end].isalnum()) and data[end : end + 1] != b":"


def _value(
    piece: bytes, other: bytes, words: Sequence[bytes], chance: random.Random, bytewise: protobuf.Bytewise
) -> bytes:
    kind = chance.random()
    if kind < 0.1:
        return other
    if kind < 0.2 and words:
        return chance.choice(words)
    if kind < 0.25 and words:
        return chance.choice(words) + piece
    if kind < 0.5 and _NUMBER.fullmatch(piece):
        return chance.choice(_NUMBERS)
    if len(piece) > 1 and piece[:1] == b'"' == piece[-1:]:
        return b'"%b"' % protobuf.typed(piece[1:-1], chance, bytewise)
    return protobuf.typed(piece, chance, bytewise)


def _rearranged(data: bytes, spans: Sequence[Span], between: bytes, chance: random.Random) -> bytes:
    """One of them taken away, said twice, or replaced by another."""
    if not spans:
        return data
    begin, end = chance.choice(spans)
    match chance.randrange(3):
        case 0:
            # with what divides it from the next one
            if data[end : end + 1] == between:
                return data[:begin] + data[end + 1 :]
            return data[:begin].removesuffix(between) + data[end:]
        case 1:
            return data[:end] + between + data[begin:end] + data[end:]
        case _:
            return data[:begin] + data[slice(*chance.choice(spans))] + data[end:]


def _lines(data: bytes) -> list[Span]:
    spans = []
    begin = 0
    for line in data.splitlines(keepends=True):
        spans.append((begin, begin + len(line)))
        begin += len(line)
    return spans


def _blocks(data: bytes) -> list[Span]:
    """Each line with the deeper ones below it."""
    lines = _lines(data)
    depths = [len(line := data[begin:end]) - len(line.lstrip(b" ")) for begin, end in lines]
    spans = []
    for at, (begin, end) in enumerate(lines):
        for below in range(at + 1, len(lines)):
            if depths[below] <= depths[at]:
                break
            end = lines[below][1]
        spans.append((begin, end))
    return spans


def _items(data: bytes, tokens: Sequence[Span]) -> list[Span]:
    """What stands between brackets, divided at the commas of that depth."""
    spans = []
    opened: list[tuple[int, bytes]] = []
    for begin, end in tokens:
        token = data[begin:end]
        if token in _CLOSING:
            opened.append((end, _CLOSING[token]))
        elif opened and token in (b",", opened[-1][1]):
            since, closing = opened.pop()
            spans.append((since, begin))
            if token == b",":
                opened.append((end, closing))
    return spans
