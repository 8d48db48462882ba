"""Rows in the codecs of a job's profile: which step in which, whole jobs, replays, refusals."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.node.stage.driver import Driver, Task, driver, first_fault
from tests.node.stage.network import Network, network
from tests.node.stage.tiny import ALL_INT8, HIDDEN, MANIFEST, PREFILL_BF16, PREFILL_INT8

from plait.protocol.ids import Hash
from plait.protocol.manifest import FP32_STRICT, PROFILES, Profile
from plait.protocol.pb import stage_pb2 as pb
from plait_node.engine import StepInput, StepOutput
from plait_node.engine.errors import NumericsError
from plait_node.stage import StageError
from plait_node.stage.codecs import RowCodecs
from plait_node.stage.compute import StepWork
from plait_node.stage.errors import NoRoomError
from plait_node.stage.kept import RowBudget
from plait_node.stage.outgoing import again_frames
from plait_node.wire import encode_rows, row_bytes
from plait_node.wire.tensor import FP32, IDS, INT8

CODED = (PREFILL_BF16, PREFILL_INT8, ALL_INT8)
NAMES = [profile.name for profile in CODED]
PROMPT = [(5 * at + 1) % 60 for at in range(40)]
JOB = Hash(b"\x05" * 32)

profiles = st.sampled_from([FP32_STRICT, *CODED])


def codecs_of(profile: Profile, *, prompt: int = 40) -> RowCodecs:
    return RowCodecs.of(profile, prompt=prompt, hidden=HIDDEN)


def spied(net: Network) -> list[pb.Rows]:
    """Return where all rows end up that stages send to stages from now on."""
    sent: list[pb.Rows] = []
    for node in net.nodes:
        for job in node.role._jobs:
            if job.downstream is not None:
                job.downstream.send = noting(job.downstream.send, sent)  # type: ignore[method-assign]
    return sent


def noting(send: object, sent: list[pb.Rows]) -> object:
    async def noted(frame: pb.Frame) -> None:
        if frame.HasField("rows"):
            sent.append(frame.rows)
        await send(frame)  # type: ignore[operator]

    return noted


async def opened(worker: Driver, prompt: Sequence[int] = PROMPT, **changed: object) -> Task:
    task = worker.task(prompt, max_tokens=20, **changed)
    await task.open()
    return task


def test_codecs_change_where_the_payers_prompt_ends_and_nowhere_else() -> None:
    codecs = codecs_of(PREFILL_INT8)

    assert [codecs.between(step) for step in (0, 39, 40, 90)] == ["int8", "int8", "fp32", "fp32"]
    assert [codecs.into(step, stage=0) for step in (39, 40)] == [IDS, IDS]
    assert [codecs.into(step, stage=2) for step in (39, 40)] == ["int8", "fp32"]
    assert [codecs.out_of(step, is_tail=True) for step in (39, 40)] == [FP32, FP32]
    assert (codecs.width(39), codecs.width(40)) == (row_bytes("int8", HIDDEN), row_bytes("fp32", HIDDEN))


@given(profiles, st.integers(0, 60), st.integers(0, 60), st.integers(0, 60))
def test_codecs_pieces_tile_the_steps_and_sizes_add_up(profile: Profile, prompt: int, first: int, more: int) -> None:
    codecs, last = codecs_of(profile, prompt=prompt), first + more
    pieces = list(codecs.pieces(first, last))

    assert [step for begin, end in pieces for step in range(begin, end)] == list(range(first, last))
    assert all(codecs.between(begin) == codecs.between(end - 1) for begin, end in pieces)
    assert codecs.size(first, last) == sum(codecs.width(step) for step in range(first, last))


def test_profiles_of_slow_links_change_only_how_prompt_rows_travel() -> None:
    for name, codec in itertools.product(("fp32", "bf16", "int8", "int4"), ("bf16", "int8")):
        profile = PROFILES[f"{name}-prefill-{codec}"]
        assert (profile.weights, profile.prefill_codec, profile.decode_codec) == (name, codec, "fp32")
    assert len({profile.profile_id for profile in PROFILES.values()}) == len(PROFILES)


@given(
    profiles,
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(1, 9), min_size=1, max_size=12),
)
def test_rows_come_out_as_the_same_bytes_however_a_prompt_is_cut(profile: Profile, seed: int, sizes: list[int]) -> None:
    count = sum(sizes)
    rows = np.random.default_rng(seed).standard_normal((count, HIDDEN)).astype(np.float32)
    codec = codecs_of(profile, prompt=count).between(0)
    whole = encode_rows(rows, codec=codec)
    work = StepWork(
        job=JOB, step=0, count=count, codec=codec, gives=codec, data=whole, whole=False, draw=None, manifest=MANIFEST
    )
    out, hashes = b"", []
    for last, size in zip(itertools.accumulate(sizes), sizes, strict=True):
        part = work.given(last - size, last)
        done = work.made(part, StepOutput(rows=part.rows, logits=None))
        out += done.data
        hashes += done.outputs.hashes

    assert out == whole  # what came was rounded: encoding it again changes nothing
    every = work.given(0, count)
    assert list(work.made(every, StepOutput(rows=every.rows, logits=None)).outputs.hashes) == hashes


def test_rows_that_the_codec_cannot_hold_are_nobody_elses_fault() -> None:
    data = encode_rows(np.ones((1, HIDDEN), dtype=np.float32), codec=FP32)
    work = StepWork(
        job=JOB, step=0, count=1, codec=FP32, gives="bf16", data=data, whole=False, draw=None, manifest=MANIFEST
    )
    much = np.full((1, HIDDEN), np.finfo(np.float32).max, dtype=np.float32)
    given_ = StepInput(job=JOB, start=0, rows=much)

    with pytest.raises(NumericsError, match="bf16 cannot hold"):
        work.made(given_, StepOutput(rows=much, logits=None))


@given(profiles, st.integers(1, 30), st.lists(st.integers(1, 7), min_size=1, max_size=9), st.data())
def test_kept_rows_are_given_again_as_the_bytes_that_were_sent(
    profile: Profile, prompt: int, sizes: list[int], data: st.DataObject
) -> None:
    codecs = codecs_of(profile, prompt=prompt)
    kept = RowBudget(1 << 20, width=4 * HIDDEN).reserve(100, codecs)
    sent: list[bytes] = []
    for size in sizes:
        for begin, end in codecs.pieces(len(sent), len(sent) + size):
            rows = [step.to_bytes(1, "big") * codecs.width(step) for step in range(begin, end)]
            kept.add(begin, end - begin, b"".join(rows))
            sent += rows
    back = data.draw(st.integers(0, len(sent)))
    kept.cut(back)
    first = data.draw(st.integers(0, back))
    frames = [frame.rows for frame in again_frames(JOB, kept, first, back, most=4)]

    assert kept.has(first, back)
    assert not kept.has(first, back + 1)
    assert b"".join(frame.data for frame in frames) == b"".join(sent[first:back])
    assert [step for frame in frames for step in range(frame.step, frame.step + frame.count)] == list(
        range(first, back)
    )
    assert all(frame.codec == codecs.between(frame.step + at) for frame in frames for at in range(frame.count))
    assert all(frame.count <= 4 for frame in frames)


def test_kept_rows_reserve_what_they_take_in_their_codecs() -> None:
    budget = RowBudget(1_000, width=4 * HIDDEN)
    kept = budget.reserve(45, codecs_of(PREFILL_INT8))

    assert budget.used == 40 * 10 + 5 * 32
    kept.free()
    assert budget.used == 0
    with pytest.raises(NoRoomError, match="45 steps were asked"):
        budget.reserve(45, codecs_of(FP32_STRICT))


@pytest.mark.parametrize("profile", CODED, ids=NAMES)
async def test_route_under_a_codec_answers_by_the_book_and_leaves_join(tmp_path: Path, profile: Profile) -> None:
    async with network(tmp_path, profile=profile) as net, driver(net) as worker:
        answers = []
        for size in (len(PROMPT), 16, 7):
            task = await opened(worker)
            sent = spied(net)
            await task.start()
            answers.append(await task.generate(12, chunk=size))
            task.check_leaves(await task.end())

            assert answers[-1] == task.expected(12)
            codecs = codecs_of(profile)
            assert all(rows.codec == codecs.between(rows.step) for rows in sent)
            assert all(len(rows.data) == codecs.size(rows.step, rows.step + rows.count) for rows in sent)
        assert answers[0] == answers[1] == answers[2]


async def test_route_under_a_codec_takes_guesses(tmp_path: Path) -> None:
    async with network(tmp_path, profile=ALL_INT8) as net, driver(net) as worker:
        task = await opened(worker)
        await task.start()
        await task.generate(1)
        right = task.expected(12)
        await task.guess([*right[1:4], 63 - right[4]])
        while len(task.ids) < 4:
            await task.hear()
        assert await task.generate(12) == right
        task.check_leaves(await task.end())


@pytest.mark.parametrize("codec", [FP32, "bf16", IDS, "pickle"])
async def test_rows_in_another_codec_than_the_profiles_blame_who_sent_them(tmp_path: Path, codec: str) -> None:
    async with network(tmp_path, profile=PREFILL_INT8) as net, driver(net) as worker:
        task = await opened(worker)
        (job,) = net.nodes[0].role._jobs
        data = bytes(20 * row_bytes(codec, HIDDEN) if codec != "pickle" else 20)
        await job.downstream.send(pb.Frame(rows=pb.Rows(job=task.hash, step=0, count=20, codec=codec, data=data)))
        await task.start()
        accused, accuser = net.nodes[0].identity.owner, net.nodes[1].identity.owner
        faults = {fault.said_by: fault for fault in [await first_fault(task), await first_fault(task)]}

        assert f"in codec 'int8', which is this profile's, not in {codec!r}" in str(faults[accuser])
        assert faults[accuser].blamed == accused
        assert [blame.owner for blame in net.nodes[1].blames] == [accused]


async def test_rows_that_nobody_encodes_so_blame_who_sent_them(tmp_path: Path) -> None:
    async with network(tmp_path, profile=PREFILL_INT8) as net, driver(net) as worker:
        task = await opened(worker)
        (job,) = net.nodes[0].role._jobs
        data = (b"\x80\x3f" + b"\x01" * HIDDEN) * 20  # a scale of 1 whose largest value is 1
        await job.downstream.send(pb.Frame(rows=pb.Rows(job=task.hash, step=0, count=20, codec=INT8, data=data)))
        await task.start()
        faults = {fault.said_by: fault for fault in [await first_fault(task), await first_fault(task)]}

        assert "nobody encodes so" in str(faults[net.nodes[1].identity.owner])
        assert net.nodes[1].blames[0].owner == net.nodes[0].identity.owner


async def test_later_attempt_goes_on_in_the_codecs_of_the_first(tmp_path: Path) -> None:
    """What was delivered belongs to the rows that the next attempt reads, but not to the payer's prompt."""
    async with network(tmp_path, profile=PREFILL_INT8) as net, driver(net) as worker:
        first = await opened(worker)
        await first.start()
        right = first.expected(20)
        assert await first.generate(12) == right[:12]
        await first.end()

        again = worker.task(PROMPT, max_tokens=20, attempt=1, again=first, job={"start": 12})
        await again.open()
        sent = spied(net)
        await again.start()
        await again.feed(0, PROMPT)
        again.ids = right[:12]
        await again.feed(len(PROMPT), right[:12])
        while len(again.ids) == 12:
            await again.hear()
        assert await again.generate(20) == right
        assert {(rows.step < len(PROMPT), rows.codec) for rows in sent} == {(True, "int8"), (False, "fp32")}
        # Rows behind the payer's prompt are not what they will be in a longer prompt: they are cached for nobody.
        windows = len(PROMPT) // 16
        await again.end()
        assert all(len(node.engine._cached) == windows for node in net.nodes)


async def test_frame_across_the_payers_prompts_end_is_refused(tmp_path: Path) -> None:
    async with network(tmp_path, profile=PREFILL_INT8) as net, driver(net) as worker:
        again = await opened(worker, job={"start": 3})
        await again.start()
        await again.feed(0, [*PROMPT, 1, 2, 3])
        await asyncio.wait_for(worker.links[0].wait_closed(), 3)

        assert "come in frames of their own" in worker.links[0].reason
        assert [blame.owner for blame in net.nodes[0].blames] == [worker.identity.owner]


async def test_windows_are_cached_for_the_next_prompt_under_a_codec(tmp_path: Path) -> None:
    async with network(tmp_path, profile=PREFILL_INT8) as net, driver(net) as worker:
        for windows in (0, 2):
            task = worker.task(PROMPT)
            row = await task.open_reusing()
            assert row == 16 * windows
            await task.start(row)
            assert await task.generate(8, row=row) == task.expected(8)
            task.check_leaves(await task.end())


async def test_stage_under_a_profile_that_the_model_lacks_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="the model has no profile"):
        async with network(tmp_path, profile=PROFILES["int4"]):
            pass
