from __future__ import annotations

from pathlib import Path

import pytest
from tests.node.stage.driver import Driver, Task, driver
from tests.node.stage.network import network

from plait.protocol.ids import Address, Hash
from plait.protocol.pb import stage_pb2 as pb
from plait_node.commit import WindowRoots
from plait_node.stage.prefix import PrefixStore

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
    upper = PrefixStore(model=model, profile=profile, first=0, last=4)
    lower = PrefixStore(model=model, profile=profile, first=4, last=9)
    edge = [Hash(bytes([at]) * 32) for at in (7, 8)]
    upper.keep(payer, [WindowRoots(in_root=Hash(b"\x05" * 32), out_root=root) for root in edge])
    lower.keep(payer, [WindowRoots(in_root=root, out_root=Hash(b"\x06" * 32)) for root in edge])
    windows = list(upper._windows.values())
    assert len(lower.find(payer, [window.out_key for window in windows])) == 2
    assert lower.find(Address(b"\x04" * 20), [window.out_key for window in windows]) == []
