from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.node.wire.peers import HASTY, MemoryDirectory, identity, linked, listening

from plait.protocol.pb import stage_pb2 as pb
from plait_node.wire import (
    Blame,
    Dialer,
    FrameTooLargeError,
    Link,
    LinkClosedError,
    MalformedFrameError,
    Patience,
)
from plait_node.wire import frames as frames_module
from plait_node.wire import link as link_module
from plait_node.wire.frames import BATCH_BYTES, BATCH_FRAMES, PART_BYTES, Joiner, batch_of, messages_of, parse_frame
from plait_node.wire.identity import MAX_FRAME_BYTES


def rows(step: int, data: bytes = b"1234") -> pb.Frame:
    return pb.Frame(rows=pb.Rows(job=bytes(32), step=step, count=1, codec="ids", data=data))


async def test_link_frames_both_ways_arrive_in_order() -> None:
    async with linked() as pair:
        for step in range(50):
            await pair.dialed.send(rows(step))
            await pair.accepted.send(rows(step + 1_000))
        there = [(await pair.accepted.receive(deadline_s=30)).rows.step for _ in range(50)]
        back = [(await pair.dialed.receive(deadline_s=30)).rows.step for _ in range(50)]
        assert there == list(range(50))
        assert back == list(range(1_000, 1_050))


async def test_link_proven_names_the_peers_owner() -> None:
    async with linked() as pair:
        assert pair.dialed.peer != pair.accepted.peer
        assert not pair.dialed.closed


async def test_link_frame_of_the_limit_passes_and_one_above_is_refused_here() -> None:
    async with linked() as pair:
        big = rows(1, bytes(MAX_FRAME_BYTES - 100))
        await pair.dialed.send(big)
        assert (await pair.accepted.receive(deadline_s=30)).ByteSize() == big.ByteSize()
        with pytest.raises(FrameTooLargeError):
            await pair.dialed.send(rows(1, bytes(MAX_FRAME_BYTES)))
        assert not pair.dialed.closed


async def test_link_closed_tells_the_other_side_why_and_blames_nobody() -> None:
    async with linked() as pair:
        await pair.dialed.send(rows(7))
        await pair.dialed.close("the job is over")
        received = [frame.rows.step async for frame in pair.accepted.frames()]
        await pair.accepted.wait_closed()
        assert received == [7]
        assert "the job is over" in pair.accepted.reason
        assert not pair.server_blames
        assert not pair.dialer_blames
        with pytest.raises(LinkClosedError):
            await pair.accepted.send(rows(1))


async def test_link_closed_by_the_accepting_side_ends_the_dialed_one_quickly() -> None:
    async with linked() as pair:
        async with asyncio.timeout(20):  # long before its silence would count
            await pair.accepted.close("stopping")
            await pair.dialed.wait_closed()
        assert "stopping" in pair.dialed.reason


GARBAGE = {
    "garbled": b"\xff\xff\xff\xff",
    "empty": b"",
    "unknown kind": b"\xf2\x7d\x02ab",
    "wrongly typed": pb.Frame(nonce=pb.Nonce(nonce=bytes(32))).SerializeToString(),
    "oversized": rows(1, bytes(MAX_FRAME_BYTES)).SerializeToString(),
}


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE.keys())
@pytest.mark.parametrize("from_dialer", [True, False])
async def test_link_garbage_closes_the_stream_and_blames_the_sender(data: bytes, from_dialer: bool) -> None:
    async with linked() as pair:
        bad, good = (pair.dialed, pair.accepted) if from_dialer else (pair.accepted, pair.dialed)
        blames = pair.server_blames if from_dialer else pair.dialer_blames
        bad._outbox.force(data)
        await asyncio.wait_for(good.wait_closed(), 30)
        assert [blame.owner for blame in blames] == [good.peer]
        assert not blames[0].lost
        await asyncio.wait_for(bad.wait_closed(), 30)


async def test_link_frame_above_grpcs_own_cap_ends_the_stream_and_blames_the_sender(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(frames_module, "parts_of", lambda data: [data])  # type: ignore[misc]
    async with linked() as pair:
        pair.accepted._outbox.force(rows(1, bytes(2 * MAX_FRAME_BYTES)).SerializeToString())
        await asyncio.wait_for(pair.dialed.wait_closed(), 30)
        assert pair.dialer_blames[0].owner == pair.dialed.peer


PARTS = {
    "a frame between parts": [pb.Frame(part=pb.Part(data=b"x")), rows(1)],
    "empty": [pb.Frame(part=pb.Part(last=True))],
    "without an end": [pb.Frame(part=pb.Part(data=bytes(PART_BYTES)))] * (MAX_FRAME_BYTES // PART_BYTES + 1),
    "parts of parts": [
        pb.Frame(part=pb.Part(data=pb.Frame(part=pb.Part(data=b"x")).SerializeToString(), last=True)),
    ],
    "no frame": [pb.Frame(part=pb.Part(data=b"\xff\xff", last=True))],
}


def batch(*frames: pb.Frame | bytes) -> pb.Frame:
    data = [frame if isinstance(frame, bytes) else frame.SerializeToString() for frame in frames]
    return pb.Frame(batch=pb.Batch(frames=data))


BATCHES = {
    "a batch of none": [batch()],
    "a batch of too many": [batch(*[rows(1)] * (BATCH_FRAMES + 1))],
    "a batch of too many bytes": [batch(rows(1, bytes(BATCH_BYTES // 2)), rows(2, bytes(BATCH_BYTES // 2)))],
    "a batch of batches": [batch(rows(1), batch(rows(2), rows(3)))],
    "a batch of parts": [batch(pb.Frame(part=pb.Part(data=rows(1).SerializeToString(), last=True)))],
    "a batch with no frame in it": [batch(rows(1), b"\xff\xff")],
    "a batch with an empty frame in it": [batch(rows(1), b"")],
    "a batch with a nonce in it": [batch(rows(1), pb.Frame(nonce=pb.Nonce(node=bytes(20))))],
    "a batch between parts": [pb.Frame(part=pb.Part(data=b"x")), batch(rows(1), rows(2))],
    "a batch in parts": [pb.Frame(part=pb.Part(data=batch(rows(1), rows(2)).SerializeToString(), last=True))],
}


@pytest.mark.parametrize("frames", [*PARTS.values(), *BATCHES.values()], ids=[*PARTS.keys(), *BATCHES.keys()])
async def test_link_malformed_parts_and_batches_close_the_stream_and_blame_the_sender(
    frames: list[pb.Frame], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "BATCH_FRAMES", 1)  # they are sent as they are
    async with linked() as pair:
        for frame in frames:
            pair.dialed._outbox.force(frame.SerializeToString())
        await asyncio.wait_for(pair.accepted.wait_closed(), 30)
        assert [blame.owner for blame in pair.server_blames] == [pair.accepted.peer]
        assert not pair.server_blames[0].lost


@given(st.binary(min_size=1, max_size=3_000), st.integers(1, 700))
def test_joiner_gives_every_frame_back_that_was_cut(data: bytes, size: int) -> None:
    frame = rows(1, data)
    whole = frame.SerializeToString()
    joiner, got = Joiner(), []
    for at in range(0, len(whole), size):
        part = pb.Part(data=whole[at : at + size], last=at + size >= len(whole))
        got.append(joiner.take(pb.Frame(part=part).SerializeToString()))
    assert got[:-1] == [()] * (len(got) - 1)
    assert got[-1] == ((frame, len(whole)),)
    assert joiner.take(whole) == ((frame, len(whole)),)


@given(st.lists(st.binary(min_size=1, max_size=2_000), min_size=1, max_size=BATCH_FRAMES))
def test_joiner_gives_every_frame_of_a_batch_back(many: list[bytes]) -> None:
    frames = [rows(step, data) for step, data in enumerate(many)]
    sent = [frame.SerializeToString() for frame in frames]
    taken = Joiner().take(batch_of(sent))
    assert list(taken) == [(frame, len(data)) for frame, data in zip(frames, sent, strict=True)]


def test_batch_as_large_as_may_be_is_one_message_that_is_taken() -> None:
    half = rows(1, bytes(BATCH_BYTES // 2))
    half = rows(1, bytes(BATCH_BYTES - len(half.SerializeToString())))
    sent = [half.SerializeToString()] * 2
    assert BATCH_BYTES - 8 <= sum(map(len, sent)) <= BATCH_BYTES
    (message,) = messages_of(sent)
    assert len(message) > PART_BYTES
    assert [frame for frame, _ in Joiner().take(message)] == [half, half]


async def test_link_frames_that_wait_together_are_one_message_within_its_bounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with linked() as pair:
        written: list[int] = []
        write = pair.dialed._transport.write

        async def counted(data: bytes) -> None:
            written.append(len(data))
            await write(data)

        monkeypatch.setattr(pair.dialed._transport, "write", counted)
        sizes = [100] * 150 + [BATCH_BYTES // 3] * 7 + [3 * PART_BYTES] + [200] * 10
        for step, size in enumerate(sizes):
            assert pair.dialed.offer(rows(step, bytes(size)))
        got = [(await pair.accepted.receive(deadline_s=5)).rows for _ in sizes]
        assert [(each.step, len(each.data)) for each in got] == list(enumerate(sizes))
        assert len(written) <= 3 + 4 + 4 + 2 + 3  # 150 small ones, 7 of which two fit, four parts, 10 small, heartbeats
        assert max(written) <= PART_BYTES + 1_024


async def test_link_large_frame_over_a_slow_line_is_no_silence() -> None:
    directory = MemoryDirectory()
    server, client = identity(directory), identity(directory)
    patience = replace(HASTY, heartbeat_s=0.25, send_s=30.0)
    async with (
        listening(server, directory, patience=patience) as listener,
        slow_line(listener.port, bytes_a_second=2 << 20) as port,
    ):
        blames: list[Blame] = []
        dialer = Dialer(identity=client, directory=directory, patience=patience, on_blame=blames.append)
        link = await dialer.dial(replace(listener.destination, port=port))
        accepted = await listener.accepted()
        before = time.monotonic()
        await link.send(rows(1, bytes(6 << 20)))
        assert (await accepted.receive(deadline_s=30)).rows.step == 1
        assert time.monotonic() - before > 2 * patience.heartbeat_s * patience.missed_heartbeats
        assert not link.closed
        assert not blames
        await link.close()


@asynccontextmanager
async def slow_line(port: int, *, bytes_a_second: int) -> AsyncIterator[int]:
    """Pass on what comes over a port of its own, not faster than that."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(16 << 10):
                writer.write(data)
                await writer.drain()
                due = max(due, loop.time() - 1.0) + len(data) / bytes_a_second  # a busy machine is made up for
                await asyncio.sleep(due - loop.time())
        writer.close()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, there[1]), pump(there[0], writer))

    line = await asyncio.start_server(carry, "127.0.0.1", 0, limit=16 << 10)
    try:
        yield line.sockets[0].getsockname()[1]
    finally:
        line.close()


async def test_link_peer_that_vanishes_is_lost_at_once() -> None:
    async with linked() as pair:
        await pair.dialed._transport.abort()
        await asyncio.wait_for(pair.accepted.wait_closed(), 20)  # long before its silence would count
        assert "silent" not in pair.accepted.reason
        assert pair.server_blames[0].lost


async def test_link_peer_that_is_silent_is_lost_after_a_few_heartbeats() -> None:
    async with linked(patience=HASTY) as pair:
        pair.dialed._outbox.put = lambda *_: True  # type: ignore[method-assign] # swallows pings and pongs
        await asyncio.wait_for(pair.accepted.wait_closed(), 30)
        assert pair.accepted.reason == f"silent for {HASTY.missed_heartbeats} heartbeats"


async def test_link_heartbeat_measures_the_round_trip() -> None:
    async with linked() as pair:
        async with asyncio.timeout(30):
            while pair.dialed.rtt_s is None:  # noqa: ASYNC110 - a link tells nobody
                await asyncio.sleep(0.01)
        assert 0 < pair.dialed.rtt_s < 30


async def test_link_peer_that_does_not_read_ends_the_send_at_its_deadline() -> None:
    patience = Patience(heartbeat_s=60, send_s=0.5, close_s=0.2, outbox_bytes=4 << 20, inbox_bytes=1 << 20)
    async with linked(patience=patience) as pair:

        async def pour() -> None:
            for step in range(200):
                await pair.dialed.send(rows(step, bytes(1 << 20)))

        with pytest.raises(LinkClosedError, match="took nothing"):
            await pour()
        assert pair.dialed.closed


async def test_link_slow_consumer_holds_the_sender_back_and_loses_nothing() -> None:
    patience = Patience(heartbeat_s=60, send_s=30, outbox_bytes=1 << 20, inbox_bytes=1 << 20)
    async with linked(patience=patience) as pair:

        async def pour() -> None:
            for step in range(64):
                await pair.dialed.send(rows(step, bytes(1 << 18)))

        pouring = asyncio.create_task(pour())
        await asyncio.sleep(0.3)
        assert not pouring.done()
        got = [(await pair.accepted.receive(deadline_s=30)).rows.step for _ in range(64)]
        await pouring
        assert got == list(range(64))


async def test_link_accused_peer_learns_the_reason() -> None:
    async with linked() as pair:
        await pair.accepted.accuse("rows for a job of somebody else")
        await pair.dialed.wait_closed()
        assert "somebody else" in pair.dialed.reason
        assert pair.server_blames[0].owner == pair.accepted.peer


async def test_link_receive_without_a_frame_times_out() -> None:
    async with linked() as pair:
        with pytest.raises(TimeoutError):
            await pair.dialed.receive(deadline_s=0.05)
        assert not pair.dialed.closed


async def test_link_round_trip_of_a_decode_row_is_fast() -> None:
    async with linked(patience=Patience()) as pair:

        async def echo(link: Link) -> None:
            async for frame in link.frames():
                await link.send(frame)

        echoing = asyncio.create_task(echo(pair.accepted))
        spent: list[float] = []
        for step in range(300):
            before = time.perf_counter()
            await pair.dialed.send(rows(step, bytes(2_304)))
            await pair.dialed.receive(deadline_s=30)
            spent.append(time.perf_counter() - before)
        await pair.dialed.close()
        await echoing
        quick = sorted(spent)[30]  # what the machine does beside this only adds to it
        assert quick < 0.02, f"a hop there and back took {quick * 1e3:.2f} ms"


@settings(
    max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)
@given(data=st.binary(max_size=200))
def test_parse_frame_any_bytes_give_a_frame_or_malformed(data: bytes) -> None:
    try:
        frame = parse_frame(data)
    except MalformedFrameError:
        return
    assert frame.WhichOneof("body") is not None


async def test_link_random_messages_never_break_the_process() -> None:
    chooser = random.Random(5)
    valid = [rows(1).SerializeToString(), pb.Frame(ping=pb.Ping(number=3)).SerializeToString()]
    for _ in range(12):
        async with linked() as pair:
            for _ in range(20):
                data = bytearray(chooser.choice(valid))
                data[chooser.randrange(len(data))] ^= 1 << chooser.randrange(8)
                if pair.accepted.closed:
                    break
                pair.dialed._outbox.force(bytes(data))
                await asyncio.sleep(0)
            await pair.dialed.close()
            await asyncio.wait_for(pair.accepted.wait_closed(), 30)
