"""Nodes that only dial out: they are called over a meeting point, and nobody can make them dial just anyone."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import replace

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.node.wire.meeters import Meeter, meeter, rows, served, speaks, until
from tests.node.wire.peers import STEADY, MemoryDirectory, identity

from plait.protocol.ids import Hash
from plait.protocol.pb import stage_pb2 as pb
from plait.protocol.typed import Key
from plait_node.wire import Destination, DialError, KnockError, MalformedFrameError, RelayDesk, RelayLimits, relay
from plait_node.wire.knock import Knock


async def test_meeting_node_that_only_dials_out_opens_the_link_when_it_is_called() -> None:
    directory = MemoryDirectory()
    async with (
        meeter(directory) as point,
        meeter(directory, behind=[point], listens=False) as hidden,
        meeter(directory) as caller,
    ):
        link = await caller.meeting.dial(hidden.destination)
        assert link.peer == hidden.owner
        assert link in caller.links
        await speaks(link, await served(hidden, caller))
        assert await caller.meeting.dial(hidden.destination) is link
        assert not [*point.blames, *hidden.blames, *caller.blames]


async def test_meeting_point_itself_waits_for_the_link_that_is_kept_to_it() -> None:
    directory = MemoryDirectory()
    async with meeter(directory) as point, meeter(directory, behind=[point], listens=False) as hidden:
        link = await point.meeting.dial(hidden.destination)
        await speaks(link, await served(hidden, point))


async def test_meeting_point_that_is_gone_is_replaced_by_another() -> None:
    directory = MemoryDirectory()
    async with (
        meeter(directory) as stays,
        meeter(directory) as caller,
        meeter(directory) as goes,
        meeter(directory, behind=[goes, stays], listens=False) as hidden,
    ):
        await (await served(goes, hidden)).close()
        await until(lambda: len(goes.links) == 2 and len(hidden.meeting.kept) == 2)
        directory.staked.discard(goes.owner)
        await goes.links[1].close()
        await until(lambda: bool(hidden.blames))
        assert [each.owner for each in hidden.destination.via] == [stays.owner]
        assert (await caller.meeting.dial(hidden.destination)).peer == hidden.owner


async def test_meeting_node_that_keeps_no_link_is_not_met_and_the_text_says_so() -> None:
    directory = MemoryDirectory()
    async with meeter(directory) as point, meeter(directory) as caller:
        gone = Destination(
            owner=identity(directory).owner, host="", port=0, certificate=Hash(bytes(32)), via=(point.destination,)
        )
        with pytest.raises(DialError, match="keeps no link to this node") as caught:
            await caller.meeting.dial(gone)
        assert caught.value.owner == gone.owner
        with pytest.raises(DialError, match="names none"):
            await caller.meeting.dial(replace(gone, via=()))


async def test_meeting_caller_that_cannot_be_dialed_after_all_is_told_so() -> None:
    directory = MemoryDirectory()
    async with (
        meeter(directory) as point,
        meeter(directory, behind=[point], listens=False) as hidden,
        meeter(directory) as caller,
    ):
        caller.meeting.attach(caller.serve, at=replace(caller.destination, port=9))
        with pytest.raises(DialError, match=r"does not answer at 127\.0\.0\.1:9"):
            await caller.meeting.dial(hidden.destination)


async def test_meeting_node_that_says_nothing_ends_the_call_at_its_deadline() -> None:
    directory = MemoryDirectory()
    async with (
        meeter(directory) as point,
        meeter(directory, behind=[point], listens=False) as hidden,
        meeter(directory, patience=replace(STEADY, handshake_s=3.0)) as caller,
    ):
        hidden.meeting.book.on_signal = lambda *_: None
        with pytest.raises(DialError, match=r"did not open a link within 3 s"):
            await caller.meeting.dial(hidden.destination)


async def said(point: Meeter, hidden: Meeter, knock: Knock) -> str:
    """Have a meeting point pass on a call, and return what the called node says to it."""
    line = point.meeting.book.find(hidden.owner)
    assert line is not None
    before = len(point.signals)
    await line.send(knock.frame())
    await until(lambda: len(point.signals) > before)
    return point.signals[-1].knocked.fault.text


async def test_meeting_call_that_its_caller_did_not_sign_makes_nobody_dial() -> None:
    directory = MemoryDirectory()
    async with (
        meeter(directory) as point,
        meeter(directory, behind=[point], listens=False) as hidden,
        meeter(directory) as caller,
    ):
        forger = replace(caller.who, key=Key.generate())
        at, now = caller.destination, time.time()
        good = Knock.make(caller.who, hidden.owner, at=at, now=now)
        elsewhere = replace(
            good, body=pb.KnockBody(version=1, to=hidden.owner, dialable="10.0.0.1:1").SerializeToString()
        )
        late = Knock.make(caller.who, hidden.owner, at=at, now=now - 300)
        early = Knock.make(caller.who, hidden.owner, at=at, now=now + 300)
        other = Knock.make(caller.who, point.owner, at=at, now=now)

        assert "no service key" in await said(point, hidden, Knock.make(forger, hidden.owner, at=at, now=now))
        assert "not one of this call" in await said(point, hidden, elsewhere)
        assert re.search(r"expired 27[01] s ago by this node's clock", await said(point, hidden, late))
        assert "one of the clocks is wrong" in await said(point, hidden, early)
        assert "it calls" in await said(point, hidden, replace(other, to=hidden.owner))
        assert "made before" in await said(point, hidden, good)  # its name went with `elsewhere`
        directory.staked.discard(caller.owner)
        assert "not an active node" in await said(point, hidden, Knock.make(caller.who, hidden.owner, at=at, now=now))
        assert not caller.links


async def test_meeting_call_over_a_node_that_is_no_meeting_point_is_refused() -> None:
    directory = MemoryDirectory()
    async with (
        meeter(directory) as point,
        meeter(directory, behind=[point], listens=False) as hidden,
        meeter(directory) as caller,
    ):
        await caller.meeting.dial(hidden.destination)
        knock = Knock.make(caller.who, hidden.owner, at=caller.destination, now=time.time())
        assert "no meeting point" in await said(caller, hidden, knock)


async def test_meeting_call_in_another_nodes_name_is_blamed() -> None:
    directory = MemoryDirectory()
    async with meeter(directory) as point, meeter(directory) as liar, meeter(directory) as other:
        line = await liar.meeting.dial(point.destination)
        await line.send(Knock.make(other.who, liar.owner, at=other.destination, now=time.time()).frame())
        await until(lambda: bool(point.blames))
        assert point.blames[0].owner == liar.owner
        assert "in the name of" in point.blames[0].reason


@pytest.mark.parametrize(
    "frame",
    [
        pb.Frame(knock=pb.Knock(to=b"short")),
        pb.Frame(knock=pb.Knock(to=bytes(20), body=b"\xff")),
        pb.Frame(knocked=pb.Knocked(to=bytes(20), topic=b"x")),
    ],
)
async def test_meeting_malformed_call_is_blamed_and_the_node_lives(frame: pb.Frame) -> None:
    directory = MemoryDirectory()
    async with meeter(directory) as point, meeter(directory) as liar:
        line = await liar.meeting.dial(point.destination)
        await line.send(frame)
        await until(lambda: bool(point.blames))
        assert point.blames[0].owner == liar.owner
        assert (await liar.meeting.dial(point.destination)).peer == point.owner


@given(st.binary(max_size=300), st.booleans())
@settings(max_examples=300)
def test_knock_of_any_bytes_is_read_or_malformed(data: bytes, in_the_body: bool) -> None:
    received = Knock.make(_CALLER, _CALLER.owner, at=None, now=0.0).frame().knock
    try:
        if in_the_body:
            received.body = data
        else:
            received = pb.Knock.FromString(data)
    except DecodeError:
        return
    try:
        knock = Knock.from_pb(received)
    except MalformedFrameError:
        return
    assert knock.dialable in (True, False)
    assert Knock.from_pb(knock.frame().knock) == knock


_CALLER = identity()


async def test_meeting_flood_of_calls_is_answered_with_busy_and_reaches_nobody() -> None:
    directory = MemoryDirectory()
    async with (
        meeter(directory) as point,
        meeter(directory, behind=[point], listens=False) as hidden,
        meeter(directory) as caller,
    ):
        hidden.meeting.book.on_signal = lambda _, frame: hidden.signals.append(frame)
        point.meeting._rates._clock = lambda: 0.0  # all in one moment, however long the machine takes
        line = await caller.meeting.dial(point.destination)
        for _ in range(200):
            await line.send(Knock.make(caller.who, hidden.owner, at=None, now=time.time()).frame())
        await until(lambda: len(caller.signals) > 150)
        assert all(
            "try again later" in each.knocked.fault.text or "relays nothing" in each.knocked.fault.text
            for each in caller.signals
        )
        assert len(hidden.signals) <= 16
        assert not line.closed


async def test_meeting_of_two_that_only_dial_out_is_relayed_and_the_relay_reads_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passed: list[bytes] = []
    read = relay._read

    async def watched(stream: relay.Transport) -> pb.Relayed:
        message = await read(stream)
        passed.append(message.data)
        return message

    monkeypatch.setattr(relay, "_read", watched)
    directory = MemoryDirectory()
    async with (
        meeter(directory, relay=RelayLimits()) as point,
        meeter(directory, behind=[point]) as hidden,
        meeter(directory, listens=False) as caller,
    ):
        link = await caller.meeting.dial(hidden.destination)
        assert link.peer == hidden.owner
        other = await served(hidden, caller)
        await speaks(link, other)
        secret = b"nobody between the two may read this" * 3_000
        await link.send(rows(3, secret))
        assert (await other.receive(deadline_s=30)).rows.data == secret
        assert sum(map(len, passed)) > len(secret)
        assert secret[:36] not in b"".join(passed)

        await link.close()
        await until(lambda: other.closed and not point.meeting._relay._sessions)  # type: ignore[union-attr]


async def test_meeting_point_that_relays_nothing_says_so() -> None:
    directory = MemoryDirectory()
    async with (
        meeter(directory) as point,
        meeter(directory, behind=[point]) as hidden,
        meeter(directory, listens=False, patience=replace(STEADY, handshake_s=3.0)) as caller,
    ):
        with pytest.raises(DialError, match="relays nothing"):
            await caller.meeting.dial(hidden.destination)


async def test_relay_ends_a_stream_above_its_bytes() -> None:
    directory = MemoryDirectory()
    async with (
        meeter(directory, relay=RelayLimits(most_bytes=100_000)) as point,
        meeter(directory, behind=[point]) as hidden,
        meeter(directory, listens=False) as caller,
    ):
        link = await caller.meeting.dial(hidden.destination)
        await link.send(rows(1, bytes(200_000)))
        await asyncio.wait_for(link.wait_closed(), 30)
        assert (await caller.meeting.dial(hidden.destination)).peer == hidden.owner


async def test_relay_holds_a_sender_to_its_rate_and_loses_nothing() -> None:
    directory = MemoryDirectory()
    async with (
        meeter(directory, relay=RelayLimits(bytes_a_second=400_000)) as point,
        meeter(directory, behind=[point]) as hidden,
        meeter(directory, listens=False) as caller,
    ):
        link = await caller.meeting.dial(hidden.destination)
        other = await served(hidden, caller)
        before = time.monotonic()
        for step in range(10):
            await link.send(rows(step, bytes(40_000)))
        steps = [(await other.receive(deadline_s=30)).rows.step for _ in range(10)]
        assert steps == list(range(10))
        assert time.monotonic() - before > 0.5  # 400,000 bytes, a tenth of a second of them at once


async def test_relay_takes_a_few_streams_of_a_caller_and_none_that_nobody_announced() -> None:
    desk = RelayDesk(RelayLimits(streams_a_peer=2, streams=3, join_s=0.2))
    one, two = identity().owner, identity().owner
    for number in range(2):
        desk.allow(Hash(bytes([number]) * 32), one)
    with pytest.raises(KnockError, match="as many streams"):
        desk.allow(Hash(b"\x02" * 32), one)
    desk.allow(Hash(b"\x03" * 32), two)
    with pytest.raises(KnockError, match="as many streams"):
        desk.allow(Hash(b"\x04" * 32), identity().owner)
    await asyncio.sleep(0.25)
    desk.allow(Hash(b"\x02" * 32), one)  # those that nobody joined are forgotten

    directory = MemoryDirectory()
    async with meeter(directory, relay=RelayLimits()) as point:
        with pytest.raises((relay.StreamBrokenError, TimeoutError)):
            await relay.open_relay(
                point.destination.target, point.who.certificate.pem, Hash(b"\x09" * 32), deadline_s=3
            )
