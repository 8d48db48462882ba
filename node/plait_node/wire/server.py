"""Accept links: TLS with this node's certificate, handshakes with a bound on how many run at once."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from plait.protocol.ids import to_hex
from plait_node.wire.errors import HandshakeError, WireError
from plait_node.wire.handshake import Handshake, Proven
from plait_node.wire.identity import Blame, Directory, OnBlame, Patience, PeerIdentity, log_blame
from plait_node.wire.link import Link
from plait_node.wire.transport import AcceptedTransport, Listener

log = logging.getLogger(__name__)

OnLink = Callable[[Link], Awaitable[None]]

MAX_HANDSHAKES = 32
MAX_LINKS = 256


class LinkServer:
    """Listens; every proven link goes to `on_link`, and ends when that returns."""

    def __init__(
        self,
        identity: PeerIdentity,
        directory: Directory,
        on_link: OnLink,
        *,
        patience: Patience | None = None,
        on_blame: OnBlame = log_blame,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._identity = identity
        self._directory = directory
        self._on_link = on_link
        self._patience = patience or Patience()
        self._on_blame = on_blame
        self._clock = clock
        self._listener: Listener | None = None
        self._links: set[Link] = set()
        self._handshakes = 0

    async def start(self, host: str, port: int = 0) -> int:
        """Listen and return the port; raise `ListenError` when the address cannot be had."""
        self._listener = Listener(self._identity.certificate, self._serve)
        return await self._listener.start(host, port)

    async def stop(self) -> None:
        """Close every link, then the port."""
        await asyncio.gather(*(link.close("the node stops") for link in list(self._links)))
        if self._listener is not None:
            await self._listener.stop(self._patience.close_s)
            self._listener = None

    async def _serve(self, transport: AcceptedTransport) -> None:
        try:
            proven = await self._prove(transport)
        except WireError as error:
            # Nobody has proven anything yet: whoever it claimed to be must not suffer.
            self._on_blame(Blame(owner=None, where=transport.where, reason=error.text))
            return
        await self._run(transport, proven)

    async def _prove(self, transport: AcceptedTransport) -> Proven:
        if self._handshakes >= MAX_HANDSHAKES or len(self._links) >= MAX_LINKS:
            raise HandshakeError("too many links at once; try again later")
        self._handshakes += 1
        try:
            handshake = Handshake(
                identity=self._identity,
                directory=self._directory,
                dialer=False,
                certificate=self._identity.certificate.fingerprint,
                expected=None,
                clock=self._clock,
            )
            return await handshake.run(transport, deadline_s=self._patience.handshake_s)
        finally:
            self._handshakes -= 1

    async def _run(self, transport: AcceptedTransport, proven: Proven) -> None:
        link = Link(
            transport, peer=proven.owner, version=proven.version, patience=self._patience, on_blame=self._on_blame
        )
        self._links.add(link)
        log.info("link accepted peer=%s where=%s", to_hex(link.peer), transport.where)
        try:
            await self._on_link(link)
        except asyncio.CancelledError:
            # gRPC cancels us when the peer cuts the stream, perhaps before the reader has seen it
            link.lose("the peer cut the stream")
            raise
        finally:
            self._links.discard(link)
            await asyncio.shield(link.close("the role is done with this link"))
