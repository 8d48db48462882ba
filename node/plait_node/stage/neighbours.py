"""Links to other nodes: one that lives is used again, whoever dialed it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from plait.protocol.checks import NodeDirectory
from plait.protocol.ids import Address, Hash, to_hex
from plait.protocol.messages import RecordKind, Stage
from plait.protocol.typed import Domain
from plait_node.stage.errors import NextStageError
from plait_node.swarm.errors import BadRecordError
from plait_node.swarm.records import StoredRecord, check_record, node_record
from plait_node.wire import Destination, Link, WireError


class Dials(Protocol):
    """Opens links."""

    async def dial(self, destination: Destination, /) -> Link:
        """Return a proven link."""
        ...


async def destination_of(
    stored: StoredRecord,
    *,
    stage: Stage,
    model: Hash,
    profile: Hash,
    domain: Domain,
    directory: NodeDirectory,
    now: float,
) -> Destination:
    """Return how a stage of the route is reached; raise `NextStageError` unless its own record says all of it."""
    try:
        await check_record(
            stored, domain=domain, keys=directory, kind=RecordKind.NODE, topic=model, node=stage.node, now=now
        )
        record = node_record(stored)
    except BadRecordError as error:
        raise NextStageError(f"the record of {to_hex(stage.node)} is not to be believed: {error}") from error
    facts = record.facts
    if (facts.first, facts.last, facts.profile) != (stage.first, stage.last, profile):
        raise NextStageError(f"the record of {to_hex(stage.node)} serves other blocks or another profile")
    return record.destination


class Neighbours:
    """The live links of one node, by owner; `adopt` is told of every link this node dialed."""

    def __init__(self, dialer: Dials, adopt: Callable[[Link], None]) -> None:
        self._dialer = dialer
        self._adopt = adopt
        self._links: dict[Address, list[Link]] = {}
        self._dialing: dict[Address, asyncio.Lock] = {}

    def add(self, link: Link) -> None:
        """Take a link that is served."""
        self._links.setdefault(link.peer, []).append(link)

    def remove(self, link: Link) -> None:
        """Forget a link."""
        links = self._links.get(link.peer, [])
        if link in links:
            links.remove(link)
        if not links:
            self._links.pop(link.peer, None)

    def find(self, owner: Address) -> Link | None:
        """Return a live link to this owner."""
        return next((link for link in self._links.get(owner, ()) if not link.closed), None)

    def all(self) -> list[Link]:
        """Return every link."""
        return [link for links in self._links.values() for link in links]

    async def link_to(self, destination: Destination) -> Link:
        """Return a live link to the owner, dialing if there is none; raise `NextStageError`."""
        owner = destination.owner
        lock = self._dialing.setdefault(owner, asyncio.Lock())
        try:
            async with lock:
                found = self.find(owner)
                if found is None:
                    found = await self._dialer.dial(destination)
                    # A node that only dials out has opened the link itself: then it is served already.
                    if found not in self._links.get(owner, ()):
                        self.add(found)
                        self._adopt(found)
                return found
        except WireError as error:
            raise NextStageError(f"the next stage cannot be reached: {error.text}") from error
        finally:
            if not lock.locked():
                self._dialing.pop(owner, None)
