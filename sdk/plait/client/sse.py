"""Server-sent events, read from bytes that a stranger sends."""

from __future__ import annotations

from dataclasses import dataclass

from plait.protocol.errors import MalformedMessageError

MAX_EVENT_BYTES = 2 * 1_024 * 1_024


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerEvent:
    """One event; `id` is its sequence number."""

    id: int
    name: str
    data: str


class EventReader:
    """Cuts a byte stream into events; raises `MalformedMessageError`."""

    def __init__(self) -> None:
        self._rest = b""
        self._size = 0
        self._fields: dict[str, str] = {}

    def feed(self, data: bytes) -> list[ServerEvent]:
        """Return the events that ended in these bytes."""
        found: list[ServerEvent] = []
        *lines, self._rest = (self._rest + data).split(b"\n")
        if self._size + len(self._rest) > MAX_EVENT_BYTES:
            raise MalformedMessageError(f"an event exceeds {MAX_EVENT_BYTES} bytes")
        for line in lines:
            event = self._line(line.removesuffix(b"\r"))
            if event is not None:
                found.append(event)
        return found

    def _line(self, line: bytes) -> ServerEvent | None:
        if not line:
            fields, self._fields, self._size = self._fields, {}, 0
            return _event(fields) if "data" in fields else None
        self._size += len(line)
        if self._size > MAX_EVENT_BYTES:
            raise MalformedMessageError(f"an event exceeds {MAX_EVENT_BYTES} bytes")
        name, _, value = line.partition(b":")
        if name in (b"id", b"event", b"data"):
            try:
                text = value.removeprefix(b" ").decode("ascii")
            except UnicodeDecodeError as error:
                raise MalformedMessageError("an event holds bytes outside ASCII") from error
            key = name.decode()
            self._fields[key] = self._fields.get(key, "") + text if key == "data" else text
        return None


def _event(fields: dict[str, str]) -> ServerEvent:
    number = fields.get("id", "")
    if not number.isascii() or not number.isdigit() or len(number) > 19:
        raise MalformedMessageError("an event's id is a sequence number")
    return ServerEvent(id=int(number), name=fields.get("event", ""), data=fields["data"])
