"""What comes over a relay or a meeting point counts for who it comes from: none uses up what all have."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest
from tests.node.wire.meeters import meeter, served, speaks, until
from tests.node.wire.peers import STEADY, MemoryDirectory, identity

from plait.protocol.ids import to_hex
from plait_node.wire import Destination, Dialer, DialError, Link, RelayLimits
from plait_node.wire.frames import parse_frame
from plait_node.wire.gate import MAX_HANDSHAKES_A_CALLER, MAX_HANDSHAKES_AN_ADDRESS
from plait_node.wire.knock import Knock
from plait_node.wire.transport import DialedTransport


class Silent(Dialer):
    """Opens streams over which it never says who it is."""

    async def dial(self, destination: Destination) -> Link:
        if destination.host != "127.0.0.1" or destination.owner not in SILENT_TO:
            return await super().dial(destination)
        transport = DialedTransport(destination.target, await self.pinned_certificate(destination))
        try:
            said = parse_frame(await transport.read() or b"")  # what a server says first
            if said.HasField("fault"):
                raise DialError(said.fault.fault.text, owner=destination.owner)
            SILENT_AT.append(transport)
            await asyncio.sleep(600)
        finally:
            await asyncio.shield(transport.abort())
        raise AssertionError


SILENT_TO: set[bytes] = set()
SILENT_AT: list[DialedTransport] = []
CALM = replace(STEADY, handshake_s=60.0)  # a busy machine is not what is tested


async def test_meeting_relayed_caller_that_never_says_who_it_is_keeps_no_other_out() -> None:
    directory = MemoryDirectory()
    async with (
        meeter(directory, relay=RelayLimits(streams_a_peer=32), patience=CALM) as point,
        meeter(directory, behind=[point], patience=CALM) as hidden,
        meeter(directory, listens=False, dials=Silent, patience=CALM) as bad,
        meeter(directory, listens=False, patience=CALM) as honest,
    ):
        SILENT_TO.add(hidden.owner)
        await bad.meeting.dial(point.destination)
        SILENT_AT.clear()
        silent: list[asyncio.Task[Link]] = []
        try:
            while len(silent) < MAX_HANDSHAKES_AN_ADDRESS:
                silent.append(asyncio.create_task(bad.meeting.dial(hidden.destination)))
                await until(lambda: len(SILENT_AT) == len(silent) or silent[-1].done())
                if silent[-1].done():
                    break
            link = await honest.meeting.dial(hidden.destination)
            await speaks(link, await served(hidden, honest))
            assert len(silent) == MAX_HANDSHAKES_A_CALLER + 1
            with pytest.raises(DialError, match=f"4 handshakes from {to_hex(bad.owner)} over a relay"):
                await silent[-1]
        finally:
            for each in silent:
                each.cancel()
            await asyncio.gather(*silent, return_exceptions=True)


async def test_meeting_caller_that_knocks_and_does_not_come_keeps_no_other_out() -> None:
    directory = MemoryDirectory()
    async with (
        meeter(directory, relay=RelayLimits(streams_a_peer=32), patience=CALM) as point,
        meeter(directory, behind=[point], patience=CALM) as hidden,
        meeter(directory, listens=False, patience=CALM) as bad,
        meeter(directory, listens=False, patience=CALM) as honest,
    ):
        line = await bad.meeting.dial(point.destination)
        for _ in range(16):
            await line.send(Knock.make(bad.who, hidden.owner, at=None, now=time.time()).frame())
        await until(lambda: len(hidden.signals) == 16)
        link = await honest.meeting.dial(hidden.destination)
        await speaks(link, await served(hidden, honest))


async def test_meeting_caller_whose_calls_are_all_refused_does_not_keep_refusals_from_others() -> None:
    directory = MemoryDirectory()
    async with (
        meeter(directory, patience=CALM) as point,
        meeter(directory, behind=[point], listens=False, patience=CALM) as hidden,
        meeter(directory, patience=CALM) as bad,
        meeter(directory, patience=CALM) as honest,
    ):
        line = await bad.meeting.dial(point.destination)
        for _ in range(16):
            await line.send(Knock.make(bad.who, hidden.owner, at=bad.destination, now=time.time() - 300).frame())
        await until(lambda: sum(each.HasField("knocked") for each in bad.signals) >= 14)
        honest.meeting.attach(honest.serve, at=replace(honest.destination, port=9))
        with pytest.raises(DialError, match=r"does not answer at 127\.0\.0\.1:9"):
            await honest.meeting.dial(hidden.destination)


async def test_meeting_point_that_invents_callers_is_held_to_its_own_share() -> None:
    directory = MemoryDirectory()
    async with (
        meeter(directory, patience=CALM) as point,
        meeter(directory, behind=[point], listens=False, patience=CALM) as hidden,
    ):
        line = point.meeting.book.find(hidden.owner)
        assert line is not None
        callers = [identity() for _ in range(200)]
        knocks = [Knock.make(each, hidden.owner, at=point.destination, now=time.time()).frame() for each in callers]
        for knock in knocks:
            await line.send(knock)

        def told() -> list[str]:
            return [each.knocked.fault.text for each in point.signals if each.HasField("knocked")]

        await until(lambda: len(hidden.signals) == 200)
        await until(lambda: any("more knocks than this node takes" in text for text in told()))
        assert len(hidden.meeting._answering) <= 16
