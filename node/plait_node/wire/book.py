"""The live links of one role, who waits for one to come, and whose bytes come over a relay."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager

from plait.protocol.ids import Address
from plait.protocol.pb import stage_pb2 as pb
from plait_node.wire.errors import MalformedFrameError
from plait_node.wire.gate import end_of
from plait_node.wire.link import Link

OnSignal = Callable[[Link, pb.Frame], None]


class LinkBook:
    """Knows every link that a dialer and a server of one role made, by the peer's owner."""

    def __init__(self) -> None:
        self._links: dict[Address, list[Link]] = {}
        self._expected: dict[Address, set[asyncio.Future[Link]]] = {}
        self._carried: dict[tuple[str, str], Address] = {}
        self.on_signal: OnSignal = _refuse

    def signal(self, link: Link, frame: pb.Frame) -> None:
        """Take a call that came over a link; raise `MalformedFrameError`."""
        self.on_signal(link, frame)

    def add(self, link: Link) -> None:
        """Take a new link; whoever expects one to its peer gets it."""
        live = {owner: [each for each in links if not each.closed] for owner, links in self._links.items()}
        self._links = {owner: links for owner, links in live.items() if links}
        self._links.setdefault(link.peer, []).append(link)
        for each in self._expected.pop(link.peer, ()):
            if not each.done():
                each.set_result(link)

    @contextmanager
    def carrying(self, caller: Address, end: tuple[str, str]) -> Generator[None]:
        """Know while it lasts whose a connection is that this node makes to itself from an `end`, host and port."""
        self._carried[end] = caller
        try:
            yield
        finally:
            del self._carried[end]

    def caller_at(self, where: str) -> Address | None:
        """Return who is at the far end of such a connection, where gRPC says where a peer is; None for any other."""
        return self._carried.get(end_of(where))

    def find(self, owner: Address) -> Link | None:
        """Return a live link to this owner."""
        return next((link for link in self._links.get(owner, ()) if not link.closed), None)

    def count(self, owner: Address) -> int:
        """Return how many live links to this owner there are."""
        return sum(not link.closed for link in self._links.get(owner, ()))

    def expect(self, owner: Address) -> asyncio.Future[Link]:
        """Return what becomes the next new link to this owner; cancel it when it is not awaited any more."""
        coming: asyncio.Future[Link] = asyncio.get_running_loop().create_future()
        self._expected.setdefault(owner, set()).add(coming)
        coming.add_done_callback(lambda done: self._forget(owner, done))
        return coming

    def _forget(self, owner: Address, coming: asyncio.Future[Link]) -> None:
        waiting = self._expected.get(owner)
        if waiting is not None:
            waiting.discard(coming)
            if not waiting:
                del self._expected[owner]


def _refuse(_: Link, frame: pb.Frame) -> None:
    raise MalformedFrameError(f"a {frame.WhichOneof('body')} at a node that takes none")
