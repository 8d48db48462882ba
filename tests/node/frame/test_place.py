"""A stage that was told how many blocks it has room for takes those which help most, and keeps them."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from tests.node.swarm.chain import DOMAIN, MODEL, NOW, PROFILE, Chain, Node, facts

from plait.protocol.ids import to_hex
from plait_node.app.place import placed
from plait_node.config import Socket, StageConfig
from plait_node.swarm.announcer import Announcer
from plait_node.swarm.dht import MemoryDht
from plait_node.swarm.directory import Directory

BLOCKS = 12
CONFIG = StageConfig.model_validate(
    {"model": to_hex(MODEL), "blocks": 5, "listen": Socket(host="127.0.0.1", port=0), "price": 1}
)


class Swarm:
    """Stages that announce themselves over one table."""

    def __init__(self) -> None:
        self.dht, self.chain, self.me = MemoryDht(), Chain(), Node()
        self.directory = Directory(dht=self.dht, nodes=self.chain, keys=self.chain, domain=DOMAIN, clock=lambda: NOW)

    async def serve(self, first: int, last: int, node: Node | None = None) -> None:
        node = self.chain.add(node or Node())
        announcer = Announcer(
            dht=self.dht, dht_key=node.secret, key=node.key, domain=DOMAIN, node=node.owner, clock=lambda: NOW
        )
        await announcer.announce(facts(first, last, step_micros=1_000 * (last - first)))

    async def place(self, config: StageConfig, file: Path) -> tuple[int, int]:
        made = await placed(config, self.directory, file, owner=self.me.owner, blocks=BLOCKS, profile=PROFILE, look_s=0)
        return made.first, made.last


async def test_place_empty_swarm_begins_at_the_first_block(tmp_path: Path) -> None:
    assert await Swarm().place(CONFIG, tmp_path / "blocks.json") == (0, 5)


async def test_place_gap_is_filled_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    swarm = Swarm()
    await swarm.serve(0, 4)
    await swarm.serve(8, 12)
    with caplog.at_level(logging.INFO):
        assert await swarm.place(CONFIG, tmp_path / "blocks.json") == (4, 8)
    assert "blocks chosen first=4 last=8 weakest=4-7 steps_s=0 " in caplog.text


async def test_place_restart_takes_the_same_blocks_though_others_are_weaker_now(tmp_path: Path) -> None:
    swarm, file = Swarm(), tmp_path / "blocks.json"
    await swarm.serve(0, 8)
    assert await swarm.place(CONFIG, file) == (8, 12)
    await swarm.serve(8, 12)
    await swarm.directory.refresh(MODEL)
    assert await swarm.place(CONFIG, file) == (8, 12)
    assert await swarm.place(CONFIG, tmp_path / "other.json") != (8, 12)


async def test_place_its_own_old_record_fills_no_gap(tmp_path: Path) -> None:
    swarm = Swarm()
    await swarm.serve(0, 8)
    await swarm.serve(8, 12, swarm.me)
    assert await swarm.place(CONFIG, tmp_path / "blocks.json") == (8, 12)


async def test_place_other_room_is_chosen_anew(tmp_path: Path) -> None:
    swarm, file = Swarm(), tmp_path / "blocks.json"
    assert await swarm.place(CONFIG, file) == (0, 5)
    assert await swarm.place(CONFIG.model_copy(update={"blocks": 99}), file) == (0, 12)


async def test_place_damaged_file_is_said_and_written_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "blocks.json"
    file.write_text("{]")
    assert await Swarm().place(CONFIG, file) == (0, 5)
    assert "kept blocks not read" in caplog.text
    caplog.clear()
    assert await Swarm().place(CONFIG, file) == (0, 5)
    assert not caplog.text
