"""Ask nodes of the DHT directly (BEP 5, BEP 44): one datagram out, one in, a deadline on each.

libtorrent answers for this node and keeps the table; its own searches wait 15 s for every peer that died, which a
small network cannot afford. This client waits a fraction of a second and remembers who was silent.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeGuard, cast

import libtorrent as lt

Peer = tuple[str, int]

ANSWER_S = 0.7
_UNREAD_S = 0.05  # more: where this process stood still, answers lie in its socket when the time is over
_MAX_DATAGRAM = 4_096
# A burst of answers to many searches at once must not look like silence.
_RECEIVE_BUFFER = 1 << 20
# The stub's entry type is open: here it is whatever comes, checked where it is read.
_bencode = cast("Callable[[Any], bytes]", lt.bencode)  # pyright: ignore[reportUnknownMemberType]
_bdecode = cast("Callable[[bytes], object]", lt.bdecode)  # pyright: ignore[reportUnknownMemberType]
_COMPACT = 26  # id 20, IPv4 4, port 2
_MAX_NODES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A node's answer to a query, well formed; `refused`: it answered with an error."""

    peer: Peer
    refused: bool = False
    node: bytes = b""
    token: bytes = b""
    nodes: tuple[tuple[bytes, Peer], ...] = ()
    value: bytes | None = None
    key: bytes = b""
    signature: bytes = b""
    sequence: int = 0


class Krpc(asyncio.DatagramProtocol):
    """A socket that asks and is not asked: it says that it is read-only (BEP 43)."""

    def __init__(self) -> None:
        """Make a client; open it with `create_datagram_endpoint`."""
        self._id = os.urandom(20)
        self._waiting: dict[tuple[Peer, bytes], asyncio.Future[Answer | None]] = {}
        self._transport: asyncio.DatagramTransport | None = None
        self.dropped: Counter[str] = Counter()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the socket."""
        self._transport = cast("asyncio.DatagramTransport", transport)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)

    def close(self) -> None:
        """Close the socket; who still waits gets no answer."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_result(None)

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        """Match a datagram with the query it answers; anything else is dropped, what is no answer at all counted."""
        peer: Peer = (addr[0], addr[1])
        answer = _read(peer, data) if len(data) <= _MAX_DATAGRAM else None
        if answer is None:
            self.dropped["datagram_too_large" if len(data) > _MAX_DATAGRAM else "datagram_malformed"] += 1
            return
        waiting = self._waiting.get((peer, answer[0]))
        if waiting is not None and not waiting.done():
            waiting.set_result(answer[1])

    def error_received(self, exc: Exception) -> None:
        """Ignore what the socket says: a silent peer is noticed by its silence."""

    async def ask(self, peer: Peer, method: bytes, arguments: dict[bytes, Any]) -> Answer | None:
        """Send a query and return the answer; None when none came within `ANSWER_S`, or had when we could look."""
        transport = self._transport
        if transport is None or not is_address(peer):
            return None
        number = os.urandom(4)
        asked = {b"id": self._id} | arguments  # arguments may bring an id of their own
        message: dict[bytes, Any] = {b"a": asked, b"q": method, b"ro": 1, b"t": number, b"y": b"q"}
        waiting: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()
        self._waiting[peer, number] = waiting
        try:
            transport.sendto(_bencode(message), peer)
            for patience_s in (ANSWER_S, _UNREAD_S):
                await asyncio.wait({waiting}, timeout=patience_s)
            return waiting.result() if waiting.done() else None
        except OSError:
            return None
        finally:
            self._waiting.pop((peer, number), None)


def _read(peer: Peer, data: bytes) -> tuple[bytes, Answer] | None:
    """Return transaction and answer of a datagram; None for anything that is not exactly one."""
    try:
        message = _bdecode(data)
    except (RuntimeError, ValueError, OverflowError):
        return None
    if not _is_dict(message):
        return None
    number, kind = message.get(b"t"), message.get(b"y")
    if not isinstance(number, bytes):
        return None
    if kind == b"e":
        return number, Answer(peer=peer, refused=True)
    reply = message.get(b"r")
    if kind != b"r" or not _is_dict(reply):
        return None
    node, sequence = reply.get(b"id"), reply.get(b"seq", 0)
    if not isinstance(node, bytes) or len(node) != 20 or type(sequence) is not int:
        return None
    value = reply.get(b"v")
    answer = Answer(
        peer=peer,
        node=node,
        token=_bytes(reply.get(b"token")),
        nodes=tuple(_nodes(_bytes(reply.get(b"nodes")))),
        value=value if isinstance(value, bytes) else None,
        key=_bytes(reply.get(b"k")),
        signature=_bytes(reply.get(b"sig")),
        sequence=sequence,
    )
    return number, answer


def is_address(peer: Peer) -> bool:
    """Say whether a peer can be asked without looking up a name; the answer must come from the same address."""
    try:
        return not ipaddress.IPv4Address(peer[0]).is_unspecified and 0 < peer[1] < 65_536
    except ValueError:
        return False


def _is_dict(value: object) -> TypeGuard[dict[bytes, object]]:
    return isinstance(value, dict)


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else b""


def _nodes(compact: bytes) -> list[tuple[bytes, Peer]]:
    found: list[tuple[bytes, Peer]] = []
    for at in range(0, min(len(compact), _COMPACT * _MAX_NODES) - _COMPACT + 1, _COMPACT):
        raw = compact[at : at + _COMPACT]
        port = int.from_bytes(raw[24:], "big")
        if port:
            found.append((raw[:20], (".".join(map(str, raw[20:24])), port)))
    return found
