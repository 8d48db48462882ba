"""A stage process that nobody can dial serves like the others, over a meeting point that it found by itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from chain_tests.live.network import MODEL, LiveNetwork, talk, until

from plait import AsyncPlait
from plait.protocol.ids import to_hex

pytestmark = pytest.mark.timeout(900)

QUESTION = "Name three rivers of Europe."


async def answered(client: AsyncPlait) -> tuple[tuple[int, ...], list[str]]:
    """Return the tokens of one greedy answer, and the nodes that computed it."""
    stream = await client.chat.completions.create(
        model=MODEL, messages=talk(QUESTION), max_tokens=24, temperature=0, stream=True
    )
    async for _ in stream:
        pass
    return stream._run.verifier.ids, [str(stage.node) for stage in stream.completion.job.route]


async def test_stage_process_behind_nat_carries_an_answer(net: LiveNetwork, tmp_path: Path) -> None:
    birch = net.nodes["stage-birch"]
    file = birch.home / "node.toml"
    dialable = file.read_text(encoding="utf-8")
    async with net.payer(tmp_path) as client:
        before, _ = await answered(client)
        net.nodes["stage-spare"].kill()
        birch.kill()
        file.write_text(dialable.replace("[stage]", '[stage]\nreach = "via"'), encoding="utf-8")
        try:
            await net.restart("stage-birch")
            await until(lambda: "meeting point kept" in birch.text(), "no meeting point", within_s=120)
            assert "listen" not in json.loads((birch.home / "ready.json").read_text(encoding="utf-8"))
            after, route = await answered(client)
            assert to_hex(birch.owner) in route
            assert after == before
        finally:
            file.write_text(dialable, encoding="utf-8")
            birch.kill()  # whoever needs it next starts it as it was
