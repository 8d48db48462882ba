from __future__ import annotations

from pathlib import Path

import pytest
from tests.node.stage.driver import Driver, Task, driver
from tests.node.stage.network import network, until

from plait.protocol.ids import Address, Hash
from plait.protocol.pb import stage_pb2 as pb
from plait.protocol.windows import lineage
from plait_node.commit import WindowRoots
from plait_node.stage.codecs import RowCodecs
from plait_node.stage.kept import RowBudget
from plait_node.stage.prefix import PrefixStore, leading_rows

PROMPT = [(11 * at + 5) % 60 for at in range(50)]


async def answer(worker: Driver, prompt: list[int], count: int = 5) -> tuple[Task, int]:
    task = worker.task(prompt, max_tokens=count)
    row = await task.open_reusing()
    await task.start(row)
    assert await task.generate(count, row=row) == task.expected(count)
    task.check_leaves(await task.end())
    return task, row


async def test_prefix_same_payer_reuses_whole_windows_and_signs_the_same_roots(tmp_path: Path) -> None:
    async with network(tmp_path) as net, driver(net) as worker:
        first, row = await answer(worker, PROMPT)
        assert row == 0
        for node in net.nodes:
            node.engine.calls.clear()
        second, row = await answer(worker, [*PROMPT, 1, 2, 3])
        assert row == 48
        for node in net.nodes:
            assert node.engine.calls[0][1:] == (48, 5)
        # Salts differ from job to job: what is equal are the roots beneath them.
        kept = [node.role._jobs._jobs[second.hash]._notary._committer.kept for node in net.nodes]
        before = [node.role._jobs._jobs[first.hash]._notary._committer.kept for node in net.nodes]
        assert [each[:3] for each in kept] == before


async def test_prefix_repeated_prompt_computes_at_least_its_last_row(tmp_path: Path) -> None:
    async with network(tmp_path) as net, driver(net) as worker:
        await answer(worker, PROMPT[:48])
        _, row = await answer(worker, PROMPT[:48])
        assert row == 32
        _, row = await answer(worker, PROMPT[:49])
        assert row == 48  # the tail's window that had a token drawn at its end serves without it


async def test_prefix_of_another_payer_stays_unseen(tmp_path: Path) -> None:
    async with network(tmp_path) as net, driver(net) as one, driver(net) as two:
        await answer(one, PROMPT)
        _, row = await answer(two, PROMPT)
        assert row == 0


async def test_prefix_other_first_tokens_share_nothing(tmp_path: Path) -> None:
    async with network(tmp_path) as net, driver(net) as worker:
        await answer(worker, PROMPT)
        _, row = await answer(worker, [9, *PROMPT[1:]])
        assert row == 0


async def test_prefix_forgotten_by_one_stage_is_computed_again_by_all(tmp_path: Path) -> None:
    async with network(tmp_path) as net, driver(net) as worker:
        await answer(worker, PROMPT)
        net.nodes[1].engine.forget_prefixes()
        _, row = await answer(worker, PROMPT)
        assert row == 0


async def test_prefix_start_below_what_is_held_rolls_back(tmp_path: Path) -> None:
    async with network(tmp_path) as net, driver(net) as worker:
        await answer(worker, PROMPT)
        task = worker.task(PROMPT, max_tokens=4)
        assert await task.open_reusing() == 48
        await task.start(16)
        assert await task.generate(4, row=16) == task.expected(4)
        task.check_leaves(await task.end())


@pytest.mark.parametrize("count", [1, 3])
async def test_prefix_keys_that_nobody_computed_are_not_found(tmp_path: Path, count: int) -> None:
    async with network(tmp_path) as net, driver(net) as worker:
        await answer(worker, PROMPT)
        task = worker.task(PROMPT, max_tokens=4)
        keys = [bytes([at]) * 32 for at in range(count)]
        await task.send(2, pb.Frame(open=task.open_frame(2, lineage_keys=keys)))
        while 2 not in task.opened:
            await task.hear()
        assert task.opened[2] == []


def test_store_out_keys_are_the_next_stages_in_keys() -> None:
    model, profile, payer = Hash(b"\x01" * 32), Hash(b"\x02" * 32), Address(b"\x03" * 20)
    upper = PrefixStore(RowBudget(0, width=4), model=model, profile=profile, first=0, last=4)
    lower = PrefixStore(RowBudget(0, width=4), model=model, profile=profile, first=4, last=9)
    edge = [Hash(bytes([at]) * 32) for at in (7, 8)]
    upper.keep(payer, [WindowRoots(in_root=Hash(b"\x05" * 32), out_root=root) for root in edge])
    lower.keep(payer, [WindowRoots(in_root=root, out_root=Hash(b"\x06" * 32)) for root in edge])
    windows = list(upper._windows.values())
    assert len(lower.find(payer, [window.out_key for window in windows])) == 2
    assert lower.find(Address(b"\x04" * 20), [window.out_key for window in windows]) == []


PAYER = Address(b"\x03" * 20)
WINDOW = 16 * 4  # bytes
PLAIN = RowCodecs(prefill="fp32", decode="fp32", prompt=1_000, hidden=1)


def store(windows: int) -> tuple[PrefixStore, RowBudget]:
    """Return an empty store with memory for the rows of so many windows."""
    budget = RowBudget(windows * WINDOW, width=4)
    return PrefixStore(budget, model=Hash(b"\x01" * 32), profile=Hash(b"\x02" * 32), first=0, last=4), budget


def filled(kept: PrefixStore, windows: int, *, name: int = 5) -> tuple[list[Hash], list[Hash]]:
    """Keep a prompt's windows with their rows; return the first stage's keys of them, and the engine's."""
    roots = [WindowRoots(in_root=Hash(bytes([name, at] * 16)), out_root=Hash(bytes(32))) for at in range(windows)]
    engine_keys = kept.keep(PAYER, roots)
    kept.keep_rows(engine_keys, lambda first, last: bytes([name]) * 4 * (last - first))
    keys: list[Hash] = []
    for root in roots:
        keys.append(lineage(keys[-1] if keys else kept._in_start, root.in_root))
    return keys, engine_keys


def test_rows_of_windows_are_found_with_them_and_go_when_the_engine_forgets_them() -> None:
    kept, budget = store(8)
    keys, engine_keys = filled(kept, 5)
    assert [len(window.rows) for window in kept.find(PAYER, keys)] == [WINDOW] * 5
    assert budget.cached == 5 * WINDOW
    kept.forget(engine_keys[3:])
    assert len(kept.find(PAYER, keys)) == 3
    assert budget.cached == 3 * WINDOW


def test_rows_of_windows_make_place_for_jobs_the_oldest_prompts_first_and_its_last_windows_before_its_first() -> None:
    kept, budget = store(8)
    old, _ = filled(kept, 4, name=5)
    new, _ = filled(kept, 4, name=6)
    held = kept.find(PAYER, old)  # now the new ones are older
    job = budget.reserve(16 * 2, PLAIN)
    assert leading_rows(kept.find(PAYER, new)) == 2
    assert [len(kept.find(PAYER, keys)) for keys in (old, new)] == [4, 4]  # a job may begin with them all the same
    budget.reserve(16 * 6, PLAIN)
    assert budget.cached == 0
    assert budget.used == budget.most
    assert leading_rows(held) == 4  # the job that began with them has them as long as it lives
    job.begin(64, [window.rows for window in held])
    assert job.rows(0, 64) == b"\x05" * 4 * WINDOW
    assert job.rows(0, 65) is None


def test_rows_of_windows_take_no_more_than_jobs_leave_and_never_the_place_of_their_own_lineage() -> None:
    kept, budget = store(8)
    budget.reserve(16 * 5, PLAIN)
    keys, _ = filled(kept, 6)
    assert budget.cached == 3 * WINDOW
    assert leading_rows(kept.find(PAYER, keys)) == 3


def test_kept_rows_that_begin_with_windows_are_cut_and_read_over_the_border() -> None:
    job = RowBudget(4 * WINDOW, width=4).reserve(64, PLAIN)
    window = b"".join(bytes([at] * 4) for at in range(16))
    job.begin(32, [window, window])
    job.add(32, 3, b"\xff" * 12)
    assert (job.start, job.end) == (0, 35)
    assert job.rows(14, 18) == window[-8:] + window[:8]
    assert job.rows(31, 34) == window[-4:] + b"\xff" * 8
    job.cut(20)
    assert (job.end, job.rows(16, 20)) == (20, window[:16])
    job.add(19, 2, b"\xee" * 8)
    assert job.rows(18, 21) == window[8:12] + b"\xee" * 8
    job.cut(0)
    assert (job.start, job.end) == (0, 0)


def test_kept_rows_of_which_some_are_gone_begin_behind_the_windows() -> None:
    job = RowBudget(4 * WINDOW, width=4).reserve(64, PLAIN)
    job.begin(32, [bytes(WINDOW), b""])
    assert job.rows(32, 32) == b""
    assert not job.has(0, 32)


async def test_prefix_rows_stay_with_the_windows_and_go_with_them(tmp_path: Path) -> None:
    async with network(tmp_path) as net, driver(net) as worker:
        task, _ = await answer(worker, PROMPT)
        rows = [node.role.facts.rows for node in net.nodes]
        await until(lambda: not any(each.used for each in rows))
        assert [each.cached for each in rows] == [48 * rows[0].width] * 2 + [0]  # the last stage sends rows to nobody
        again, row = await answer(worker, PROMPT)
        assert row == 48
        assert [again.kept[stage] for stage in range(3)] == [3, 3, 0]
        for node in net.nodes:
            node.engine.forget_prefixes()
        await answer(worker, [7] * 5)
        assert not any(each.cached for each in rows)
        assert task.kept == {0: 0, 1: 0, 2: 0}
