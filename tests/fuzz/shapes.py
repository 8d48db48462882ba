"""Change one field of a protobuf message and leave the rest as it is: what random bytes hardly ever hit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

_WHOLE = {
    FieldDescriptor.TYPE_UINT32: (0, 1 << 32),
    FieldDescriptor.TYPE_UINT64: (0, 1 << 64),
    FieldDescriptor.TYPE_INT32: (-(1 << 31), 1 << 32),
    FieldDescriptor.TYPE_INT64: (-(1 << 63), 1 << 64),
}

Change = Callable[[], None]


def varied(kind: type[Message], data: bytes, place: int, piece: bytes) -> bytes:
    """Return the message with one field set from `piece`, or one part left out; other bytes as they are."""
    try:
        message = kind.FromString(data)
    except DecodeError:
        return data
    changes = list(_changes(message, piece))
    if changes:
        changes[place % len(changes)]()
    return message.SerializeToString()


def _changes(message: Message, piece: bytes) -> Iterator[Change]:
    for spec, value in message.ListFields():
        if spec.is_repeated:
            yield from _in_list(value, spec, piece)
        elif spec.type == FieldDescriptor.TYPE_MESSAGE:
            yield lambda message=message, spec=spec: message.ClearField(spec.name)
            yield from _changes(value, piece)
        else:
            made = _value(spec, piece, value)
            yield lambda message=message, spec=spec, made=made: setattr(message, spec.name, made)


def _in_list(items: list[Any], spec: FieldDescriptor, piece: bytes) -> Iterator[Change]:
    yield lambda: items.extend(list(items))
    yield lambda: items.__delitem__(0)
    for at, item in enumerate(items):
        if spec.type == FieldDescriptor.TYPE_MESSAGE:
            yield from _changes(item, piece)
        else:
            made = _value(spec, piece, item)
            yield lambda at=at, made=made: items.__setitem__(at, made)


def _value(spec: FieldDescriptor, piece: bytes, before: object) -> object:
    """Return a value of the field's type; bytes keep their length every other time, as nothing else gets far."""
    match spec.type:
        case FieldDescriptor.TYPE_BYTES:
            size = len(before) if isinstance(before, bytes) and len(piece) % 2 else 0
            return (piece * (size // len(piece) + 1))[:size] if size else piece
        case FieldDescriptor.TYPE_STRING:
            return piece.decode("utf-8", "replace")
        case FieldDescriptor.TYPE_BOOL:
            return not before
        case kind:
            least, span = _WHOLE[kind]
            return int.from_bytes(piece, "big") % span + least
