"""One link per stage, shared by all jobs; what arrives on it goes to the job that it names."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from plait.protocol.codec import signed_from_pb
from plait.protocol.errors import MalformedMessageError, StaleVoucherError
from plait.protocol.ids import Address, Hash, to_hex
from plait.protocol.messages import Voucher
from plait_node.wire import Destination, Link, WireError
from plait_node.worker.errors import StageFailure

if TYPE_CHECKING:
    from plait.protocol.pb import stage_pb2
    from plait.protocol.typed import Signed
    from plait_node.swarm.records import NodeRecord

_INBOX = 4_096
_EXPECTED = frozenset({"opened", "leaf", "tokens", "at", "fault"})

_log = logging.getLogger(__name__)


class Cashier(Protocol):
    """Who is told what stages answer to payments."""

    async def take_ack(self, owner: Address, received: stage_pb2.HopAck, /) -> None:
        """Take an acknowledgement of a stage."""
        ...

    async def take_stale(self, owner: Address, stands: Signed[Voucher] | None, /) -> None:
        """Hear that a stage lacks payments: the last voucher that it accepted, None before its first."""
        ...


class Dials(Protocol):
    """The part of `Dialer` that the pool uses."""

    async def dial(self, destination: Destination, /) -> Link:
        """Return a proven link; raise `WireError`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """A frame from a stage."""

    owner: Address
    frame: stage_pb2.Frame


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """The link to a stage ended."""

    owner: Address
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PayerSpoke:
    """The payer paid or cancelled."""


Event = Arrived | Lost | PayerSpoke


@dataclass(slots=True, eq=False)
class Inbox:
    """What stages send to one job."""

    job: Hash
    owners: frozenset[Address]
    events: asyncio.Queue[Event] = field(default_factory=asyncio.Queue[Event])

    def offer(self, event: Event) -> bool:
        """Queue an event; False, and nothing queued, when a stage sent more than a job can ask for."""
        if isinstance(event, Arrived) and self.events.qsize() >= _INBOX:
            return False
        self.events.put_nowait(event)
        return True


class LinkPool:
    """Dials a stage when a job needs it and keeps the link, or takes one that the stage opened.

    Jobs use one link a stage, the oldest that lives; others wait in its place.
    """

    def __init__(self, dialer: Dials) -> None:
        """Dial with `dialer`."""
        self._dialer = dialer
        self._links: dict[Address, Link] = {}
        self._numbers: dict[Address, int] = {}
        self._cashiers: list[Cashier] = []
        self._readers: dict[Link, asyncio.Task[None]] = {}
        self._locks: dict[Address, asyncio.Lock] = {}
        self._inboxes: dict[Hash, Inbox] = {}

    async def connect(self, record: NodeRecord) -> None:
        """Make sure that there is a link to a stage; raise `StageFailure` blaming it."""
        facts = record.facts
        async with self._locks.setdefault(record.owner, asyncio.Lock()):
            if self.alive(record.owner):
                return
            try:
                self._adopt(await self._dialer.dial(record.destination))
            except WireError as error:
                blocks = f"{facts.first}-{facts.last - 1}"
                raise StageFailure(record.owner, blocks, error.text, unheard=True) from error

    async def serve(self, link: Link) -> None:
        """Take a link that a stage opened, until it ends: the `on_link` of a `LinkServer`."""
        await asyncio.shield(self._adopt(link))

    def _adopt(self, link: Link) -> asyncio.Task[None]:
        reader = self._readers.get(link)
        if reader is None:
            reader = self._readers[link] = asyncio.create_task(self._read(link), name="worker-link")
            if not self.alive(link.peer):
                self._use(link)
        return reader

    def _use(self, link: Link) -> None:
        self._links[link.peer] = link
        self._numbers[link.peer] = self.number(link.peer) + 1

    def number(self, owner: Address) -> int:
        """Return how many links to a stage there were: another number, another link."""
        return self._numbers.get(owner, 0)

    def rtt_s(self, owner: Address) -> float | None:
        """Return the last heartbeat's round trip to a stage, None without a link that has one."""
        link = self._links.get(owner)
        return link.rtt_s if link is not None and not link.closed else None

    def report_to(self, cashier: Cashier) -> None:
        """Tell `cashier` what stages answer to payments."""
        self._cashiers.append(cashier)

    def subscribe(self, inbox: Inbox) -> None:
        """Deliver what names this job, and the loss of its links, to its inbox."""
        self._inboxes[inbox.job] = inbox
        for owner in inbox.owners:
            link = self._links.get(owner)
            if link is None or link.closed:
                inbox.offer(Lost(owner=owner, reason=link.reason if link is not None else "never dialed"))

    def unsubscribe(self, inbox: Inbox) -> None:
        """Deliver nothing more."""
        self._inboxes.pop(inbox.job, None)

    def alive(self, owner: Address) -> bool:
        """Tell whether there is a link to a stage."""
        link = self._links.get(owner)
        return link is not None and not link.closed

    async def send(self, owner: Address, frame: stage_pb2.Frame) -> None:
        """Send to a stage; raise `WireError`, also when there is no link."""
        link = self._links.get(owner)
        if link is None:
            raise WireError(f"there is no link to {to_hex(owner)}; connect first")
        await link.send(frame)

    async def accuse(self, owner: Address, reason: str) -> None:
        """Close a link because of what came over it."""
        link = self._links.get(owner)
        if link is not None:
            await link.accuse(reason)

    async def close(self) -> None:
        """Close every link and end the readers."""
        await asyncio.gather(*(link.close("the worker stops") for link in list(self._readers)))
        await asyncio.gather(*self._readers.values(), return_exceptions=True)
        self._links.clear()
        self._readers.clear()

    async def _read(self, link: Link) -> None:
        async for frame in link.frames():
            kind = frame.WhichOneof("body")
            if kind == "ack" or (kind == "fault" and frame.fault.fault.code == StaleVoucherError.code):
                wrong = await self._report(link.peer, frame)
            elif kind in _EXPECTED:
                wrong = self._deliver(link.peer, kind, frame)
            else:
                wrong = f"a stage sends no {kind} to a worker"
            if wrong is not None:
                await link.accuse(wrong)
                break
        await link.wait_closed()
        _log.info("link ended peer=%s reason=%s", to_hex(link.peer), link.reason)
        self._ended(link)

    def _ended(self, link: Link) -> None:
        """Tell the jobs that used a link, and let another one to the same stage take its place."""
        self._readers.pop(link, None)
        if self._links.get(link.peer) is not link:
            return
        for inbox in self._inboxes.values():
            if link.peer in inbox.owners:
                inbox.offer(Lost(owner=link.peer, reason=link.reason))
        spare = next((each for each in self._readers if each.peer == link.peer and not each.closed), None)
        if spare is not None:
            self._use(spare)

    async def _report(self, peer: Address, frame: stage_pb2.Frame) -> str | None:
        """Tell the cashiers what a stage answered; return what is wrong with it, None when nothing is."""
        try:
            stands = signed_from_pb(frame.fault.stands, Voucher) if frame.fault.HasField("stands") else None
        except MalformedMessageError as error:
            return error.text
        for cashier in self._cashiers:
            if frame.HasField("ack"):
                await cashier.take_ack(peer, frame.ack)
            else:
                await cashier.take_stale(peer, stands)
        return None

    def _deliver(self, peer: Address, kind: str, frame: stage_pb2.Frame) -> str | None:
        """Give a frame to its job; return what is wrong with it, None when nothing is."""
        match kind:
            case "leaf":
                job = frame.leaf.leaf.message.job
            case "opened":
                job = frame.opened.job
            case "tokens":
                job = frame.tokens.job
            case "at":
                job = frame.at.job
            case _:
                job = frame.fault.job
        inbox = self._inboxes.get(Hash(job))
        if inbox is None:
            return None  # late frames of an ended job are nobody's fault
        if peer not in inbox.owners:
            return f"a frame of kind {kind} for a job of another route"
        return None if inbox.offer(Arrived(owner=peer, frame=frame)) else "more frames than its job can hold"
