"""Reads the wire form of a request before protobuf does, and refuses what protobuf would swallow.

protobuf keeps fields that it does not know, takes a wrong wire type for one of those, drops a map entry that holds one,
and makes objects out of two-byte elements (16 MiB of input become 130 MB). Nothing is allocated here; the number of
fields is bounded. Must accept everything that a correct client can send. Used by `interceptors`.

Format: https://protobuf.dev/programming-guides/encoding/
"""

from dataclasses import dataclass
from functools import cache

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from sandboxd.errors import InvalidRequest

MAX_FIELDS = 32 * 1024  # all fields of a request together, each element of a list and each map entry counted
_VARINT, _FIXED64, _LEN, _FIXED32 = 0, 1, 2, 5
_FIXED64_TYPES = {FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FIXED64, FieldDescriptor.TYPE_SFIXED64}
_FIXED32_TYPES = {FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_FIXED32, FieldDescriptor.TYPE_SFIXED32}
_LEN_TYPES = {FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_MESSAGE}


@dataclass(frozen=True, slots=True)
class _Shape:
    """What one message type looks like on the wire: tag → the message type inside, or None for a plain value."""

    name: str
    tags: dict[int, Descriptor | None]
    numbers: frozenset[int]


def scan(data: bytes, descriptor: Descriptor) -> None:
    """`InvalidRequest` with reason `unknown_field`, `too_many_fields` or `malformed_message`."""
    pending = [(descriptor, 0, len(data))]
    fields = 0
    while pending:
        inside, position, end = pending.pop()
        shape = _shape(inside)
        while position < end:
            fields += 1
            if fields > MAX_FIELDS:
                raise InvalidRequest(
                    f"the request has more than {MAX_FIELDS} fields and elements; send fewer", reason="too_many_fields"
                )
            tag = data[position]
            if tag < 0x80:
                position += 1
            else:
                tag, position = _varint(data, position, end)
            if tag not in shape.tags:
                raise _stray(shape, tag)
            match tag & 7:
                case 2:
                    size = data[position] if position < end else 0x80
                    if size < 0x80:
                        position += 1
                    else:
                        size, position = _varint(data, position, end)
                    if size > end - position:
                        raise _malformed(shape)
                    message = shape.tags[tag]
                    if message is not None:
                        pending.append((message, position, position + size))
                    position += size
                case 0:
                    _, position = _varint(data, position, end)
                case 1:
                    position += 8
                case _:
                    position += 4
        if position != end:
            raise _malformed(shape)


@cache
def _shape(descriptor: Descriptor) -> _Shape:
    tags: dict[int, Descriptor | None] = {}
    for field in descriptor.fields:
        tags[field.number << 3 | _wire_type(field)] = field.message_type
        if field.is_repeated and field.type not in _LEN_TYPES:
            tags[field.number << 3 | _LEN] = None  # packed; a parser must take both forms
    return _Shape(descriptor.full_name, tags, frozenset(field.number for field in descriptor.fields))


def _wire_type(field: FieldDescriptor) -> int:
    if field.type in _LEN_TYPES:
        return _LEN
    if field.type in _FIXED64_TYPES:
        return _FIXED64
    return _FIXED32 if field.type in _FIXED32_TYPES else _VARINT


def _varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            break
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise InvalidRequest("the request is not a protobuf message: a number has no end", reason="malformed_message")


def _malformed(shape: _Shape) -> InvalidRequest:
    return InvalidRequest(
        f"the request is not a protobuf message: {shape.name!r} ends inside a field", reason="malformed_message"
    )


def _stray(shape: _Shape, tag: int) -> InvalidRequest:
    number, wire_type = tag >> 3, tag & 7
    if number in shape.numbers:
        return InvalidRequest(
            f"field {number} of {shape.name!r} has wire type {wire_type}; use the published schema",
            reason="malformed_message",
        )
    return InvalidRequest(
        f"{shape.name!r} has no field {number} in this version; leave it out, or ask a newer node",
        reason="unknown_field",
    )
