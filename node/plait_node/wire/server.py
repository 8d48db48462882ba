"""Accept links: TLS with this node's certificate, bounds on handshakes by address or caller and on links by owner."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable

from plait.protocol.ids import to_hex
from plait_node.wire.book import LinkBook
from plait_node.wire.errors import BusyError, WireError
from plait_node.wire.gate import Gate
from plait_node.wire.handshake import Handshake, Proven, tell
from plait_node.wire.identity import Blame, Directory, OnBlame, Patience, PeerIdentity, log_blame
from plait_node.wire.link import Link
from plait_node.wire.transport import LINK, RELAY, AcceptedTransport, Listener, Serve

log = logging.getLogger(__name__)

OnLink = Callable[[Link], Awaitable[None]]

_LINGER_S = 1.0
MAX_LINKS = 256
MAX_LINKS_A_PEER = 4  # a peer whose address changed dials again before its old link is known to be gone


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
        book: LinkBook | None = None,
        relay: Serve | None = None,
    ) -> None:
        self._identity = identity
        self._directory = directory
        self._on_link = on_link
        self._patience = patience or Patience()
        self._on_blame = on_blame
        self._clock = clock
        self._listener: Listener | None = None
        self._book = book or LinkBook()
        self._relay = relay
        self._gate = Gate()
        self._links: set[Link] = set()

    async def start(self, host: str, port: int = 0) -> int:
        """Listen and return the port; raise `ListenError` when the address cannot be had."""
        methods: dict[str, Serve] = {LINK: self._serve}
        if self._relay is not None:
            methods[RELAY] = self._relay
        self._listener = Listener(self._identity.certificate, methods, handshake_s=self._patience.handshake_s)
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
        except BusyError as error:
            log.info("link refused where=%s reason=%s", transport.where, error.text)
            await tell(transport, error.fault())
            await _linger(transport)
            return
        except WireError as error:
            # Nobody has proven anything yet: whoever it claimed to be must not suffer.
            self._on_blame(Blame(owner=None, where=transport.where, reason=error.text))
            return
        await self._run(transport, proven)

    async def _prove(self, transport: AcceptedTransport) -> Proven:
        with self._gate.pending(transport.where, caller=self._book.caller_at(transport.where)):
            if len(self._links) >= MAX_LINKS:
                raise BusyError(f"this node serves {MAX_LINKS} links already; try again later")
            handshake = Handshake(
                identity=self._identity,
                directory=self._directory,
                dialer=False,
                certificate=self._identity.certificate.fingerprint,
                expected=None,
                clock=self._clock,
            )
            return await handshake.run(transport, deadline_s=self._patience.handshake_s)

    async def _run(self, transport: AcceptedTransport, proven: Proven) -> None:
        link = Link(
            transport,
            peer=proven.owner,
            version=proven.version,
            patience=self._patience,
            on_blame=self._on_blame,
            on_signal=self._book.signal,
        )
        if sum(each.peer == link.peer for each in self._links) >= MAX_LINKS_A_PEER:
            await asyncio.shield(link.close(f"{MAX_LINKS_A_PEER} links of one node are enough"))
            return
        self._links.add(link)
        self._book.add(link)
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


async def _linger(transport: AcceptedTransport) -> None:
    """Wait for the peer to end the stream: one that is still writing its nonce would not get to read why."""
    with contextlib.suppress(TimeoutError, WireError):
        async with asyncio.timeout(_LINGER_S):
            while await transport.read() is not None:
                pass
