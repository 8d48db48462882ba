"""A worker that opens its own channels: paid on credit at first, opened and topped up while answers stream."""

from __future__ import annotations

from pathlib import Path

import pytest
from chain_tests.live.conftest import DEPOSIT
from chain_tests.live.network import MODEL, LiveNetwork, talk, until

from plait.protocol.ids import address, channel_id
from plait_audit import audit

pytestmark = pytest.mark.timeout(900)


async def test_new_pairs_are_opened_topped_up_and_claimed(opening: LiveNetwork, tmp_path: Path) -> None:
    net, key = opening, opening.service_key("worker").address
    async with net.payer(tmp_path) as client:
        answers = [
            await client.chat.completions.create(
                model=MODEL, messages=talk(f"Write a story about {what}."), max_tokens=70, temperature=0
            )
            for what in ("the sea", "a mountain")
        ]
    assert all(answer.acknowledged for answer in answers)
    worker = net.nodes["worker"]
    await until(lambda: worker.text().count("channel funded") > 3, "no channel was topped up")
    route = [address(stage.node) for stage in answers[0].job.route]
    async with net.reader() as reader:
        for owner in route:
            claims = await net.settled(channel_id(key, owner, key), count=2)
            slot = await reader.channel(key, owner, key)
            assert slot.claimed == claims[-1].cumulative > DEPOSIT
            assert slot.deposit < slot.claimed + 3 * DEPOSIT
        assert (await audit(reader)).findings == ()
