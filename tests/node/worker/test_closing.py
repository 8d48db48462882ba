"""A worker that is to stop finishes what it has, and leaves the rest to its group."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.node.worker.world import until, world

PROMPT = [token % 60 for token in range(20)]


async def test_worker_on_a_full_disk_leaves_jobs_to_its_group_until_there_is_room(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        made.full = True
        asked = await made.asking_long(PROMPT, max_tokens=4)
        waiting = asyncio.create_task(asked.run())
        await asyncio.sleep(0.5)
        assert (made.role.served, list(asked.verifier.ids)) == (0, [])
        made.full = False
        assert await waiting == asked.expected(4)


async def test_closed_worker_finishes_its_job_and_takes_no_other(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        first = await made.asking_long(PROMPT, max_tokens=40)
        running = asyncio.create_task(first.run())
        await until(lambda: len(first.verifier.ids) >= 2)
        made.role.close()
        second = await made.asking_long([7, *PROMPT], max_tokens=4)
        waiting = asyncio.create_task(second.run())
        assert await running == first.expected(40)
        await made.settled()
        assert not made.role.busy
        await asyncio.sleep(0.3)
        assert made.role.served == 1

        assert made.serving is not None
        made.serving.cancel()
        await asyncio.gather(made.serving, return_exceptions=True)
        made.hire()  # its group has the job
        made.serving = asyncio.create_task(made.role.run())
        assert await waiting == second.expected(4)
