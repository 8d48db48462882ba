from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.node.stage.driver import driver
from tests.node.stage.network import network

PROMPT = [(7 * at + 3) % 60 for at in range(40)]


@pytest.mark.parametrize(("chunk", "temperature"), [(None, 0), (16, 0), (7, 0), (None, 900_000)])
async def test_route_of_three_answers_as_the_whole_model_and_leaves_join(
    tmp_path: Path, chunk: int | None, temperature: int
) -> None:
    async with network(tmp_path) as net, driver(net) as worker:
        task = worker.task(PROMPT, max_tokens=24, temperature=temperature)
        await task.open()
        await task.start()
        ids = await task.generate(24, chunk=chunk)
        end = await task.end()
        task.check_leaves(end)
        assert ids == task.expected(24)
        await asyncio.sleep(0.05)
        assert [node.engine.open_jobs for node in net.nodes] == [0, 0, 0]
        assert all(node.role.facts.step_micros > 0 for node in net.nodes)
        assert all(not node.blames for node in net.nodes)
