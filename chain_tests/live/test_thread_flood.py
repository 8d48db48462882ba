"""More callers than the queue of a real network takes: those beyond it are told when to come, and all are answered."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from bench.swarm.tally import Tally, Watched
from chain_tests.live.network import MODEL, LiveNetwork, talk, until

from plait import AsyncPlait
from plait.client.answers import ChatCompletion
from plait.protocol.ids import address, hash32

pytestmark = pytest.mark.timeout(900)

BEYOND = 3  # callers more than the queue takes
FULL = "503 busy at /v1/jobs"


@contextmanager
def stopped(pid: int) -> Generator[None]:
    """Stop a process while the block runs."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def ask(client: AsyncPlait, number: int) -> ChatCompletion:
    return await client.chat.completions.create(
        model=MODEL, messages=talk(f"Say the number {number}."), max_tokens=8, temperature=0
    )


async def test_callers_beyond_the_queue_wait_as_long_as_they_are_told_and_are_answered(
    net: LiveNetwork, tmp_path: Path
) -> None:
    tally = Tally()
    async with (
        net.payer(tmp_path / "one", transport=Watched(tally)) as one,
        net.payer(tmp_path / "two", transport=Watched(tally)) as two,
    ):
        clients = (one, two)
        first = [await ask(client, 0) for client in clients]  # opens the channels
        count = tally.limit + BEYOND

        with stopped(net.nodes["worker"].pid):  # no job ends before the last one came
            asking = asyncio.gather(*(ask(clients[number % 2], number) for number in range(count)))
            await until(lambda: tally.refused[FULL] >= BEYOND, "nobody was refused", within_s=120)
            assert len(tally.queued) - 1 == tally.limit  # the test itself asked before
        answers = await asking

        assert (tally.broken, tally.early) == ([], [])
        assert len({each.id for each in answers}) == count
        assert all(each.acknowledged and each.verification.level == "L0" for each in answers)
        for client, before in zip(clients, first, strict=True):
            purse = await client.purse()
            mine = [each.paid for each in answers if purse.job(hash32(each.id)) is not None]
            book = purse.channel(address(before.gateway))
            assert book.cumulative - book.credit == before.paid + sum(mine)
