"""A worker that opens its own channels: paid on credit at first, opened and topped up while answers stream."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from chain_tests.live.network import MODEL, LiveNetwork, talk, until

from plait.protocol.ids import address, channel_id
from plait_audit import audit

pytestmark = pytest.mark.timeout(900)

DEPOSIT, TOKENS = 30, 1_000  # a job of a hundred steps costs a stage of ten blocks sixty


@pytest.fixture
async def opening(net: LiveNetwork) -> AsyncGenerator[LiveNetwork]:
    """Yield the network with a worker whose service key holds tokens and opens channels."""
    worker, key = net.nodes["worker"], net.service_key("worker")
    file = worker.home / "node.toml"
    before = file.read_text(encoding="utf-8")
    async with net.writer(key) as writer:
        await writer.mint(key.address, TOKENS)
    lines = f"channel_deposit = {DEPOSIT}\nchannels_most = {TOKENS}\nchannel_top_up = 0.5\n"
    file.write_text(before + lines, encoding="utf-8")
    worker.kill()
    await net.restart("worker")
    yield net
    file.write_text(before, encoding="utf-8")
    worker.kill()
    await net.restart("worker")


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
