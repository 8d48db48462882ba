"""How a node is reached: what its file says, what it tells others, whom a stage behind NAT keeps links to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest
from tests.node.frame.test_config import BASE, STAGE, written
from tests.node.swarm.chain import facts
from tests.node.wire.peers import DOMAIN, MemoryDirectory, identity

from plait.protocol.ids import Address, Hash, to_hex
from plait_node.app.base import Base
from plait_node.app.door import Door, points_of
from plait_node.config import Socket, StageConfig, load
from plait_node.errors import ConfigError
from plait_node.swarm import Directory, NodeRecord
from plait_node.wire import Certificate, Dialer, Link, PeerIdentity

POINT = f"0x{'33' * 20}@198.51.100.7:9001/0x{'44' * 32}"


def stage(folder: Path, lines: str = "") -> StageConfig:
    found = load(written(folder, BASE + STAGE + lines)).stage
    assert found is not None
    return found


def test_config_of_a_stage_behind_nat_names_its_meeting_points(tmp_path: Path) -> None:
    config = stage(tmp_path, f'reach = "via"\nvia = ["{POINT}"]\n')
    assert config.reach == "via"
    assert config.via[0].owner == b"\x33" * 20
    assert (config.via[0].socket.host, config.via[0].socket.port) == ("198.51.100.7", 9_001)
    assert config.via[0].certificate == b"\x44" * 32
    assert stage(tmp_path).reach == "dialable"


@pytest.mark.parametrize(
    "lines",
    [
        'via = ["198.51.100.7:9001"]',
        f'via = ["{POINT[:-2]}"]',
        f"via = {[POINT] * 4}".replace("'", '"'),
        'reach = "relay"',
        "relay_mib = -1",
    ],
)
def test_config_of_a_malformed_reach_names_the_field(tmp_path: Path, lines: str) -> None:
    with pytest.raises(ConfigError, match=r"stage\."):
        stage(tmp_path, lines + "\n")


@dataclass(frozen=True)
class Home:
    made: Certificate

    def certificate(self) -> Certificate:
        return self.made


@dataclass(frozen=True)
class Config:
    owner: Address


def base_of(who: PeerIdentity, directory: MemoryDirectory) -> Base:
    """Return what a door needs of a node's base."""
    parts = {"config": Config(who.owner), "home": Home(who.certificate), "key": who.key, "domain": DOMAIN}
    return cast("Base", type("Parts", (), {**parts, "keys": directory}))


async def serve(link: Link) -> None:
    await link.wait_closed()


async def test_door_says_where_it_is_dialed_in_the_form_that_via_takes(tmp_path: Path) -> None:
    directory = MemoryDirectory()
    who, other = identity(directory), identity(directory)
    door = Door(base_of(who, directory))
    async with door.open(serve, Socket(host="127.0.0.1", port=0)):
        shown = str(door.facts()["meeting_point"])
        point = stage(tmp_path, f'via = ["{shown}"]\n').via[0]
        assert (point.owner, point.certificate) == (who.owner, who.certificate.fingerprint)
        assert door.at is not None
        assert door.facts()["listen"] == door.at.target
        link = await Dialer(identity=other, directory=directory).dial(door.at)
        await link.close()


async def test_door_that_is_announced_elsewhere_shows_that_address() -> None:
    directory = MemoryDirectory()
    door = Door(base_of(identity(directory), directory))
    async with door.open(serve, Socket(host="0.0.0.0", port=0), announce=Socket(host="node.example", port=443)):  # noqa: S104
        assert door.facts()["listen"] == "node.example:443"


async def test_door_on_every_address_needs_one_to_tell_others_unless_nobody_dials_it() -> None:
    directory = MemoryDirectory()
    anywhere = Socket(host="0.0.0.0", port=0)  # noqa: S104
    with pytest.raises(ConfigError, match="set announce"):
        async with Door(base_of(identity(directory), directory)).open(serve, anywhere):
            pass
    hidden = Door(base_of(identity(directory), directory))
    async with hidden.open(serve, anywhere, hidden=True):
        assert hidden.facts() == {}
    closed = Door(base_of(identity(directory), directory))
    async with closed.open(serve, None):
        assert closed.at is None


@dataclass(frozen=True)
class Records:
    records: tuple[NodeRecord, ...]

    async def stages(self, _: Hash) -> tuple[NodeRecord, ...]:
        return self.records


def record(owner: int, first: int, last: int, **changes: Any) -> NodeRecord:
    return NodeRecord(
        owner=Address(bytes([owner]) * 20),
        facts=facts(first, last, **changes),
        sequence=1,
        expires=1,
        stored=cast("Any", None),
    )


async def test_points_are_dialable_stages_of_the_model_neighbours_first(tmp_path: Path) -> None:
    config = stage(tmp_path)  # blocks 0 to 9
    near, far = record(5, 10, 20), record(1, 20, 30)
    via = (replace(far, owner=Address(bytes(20))).destination,)
    hidden = record(2, 10, 20, host="", port=0, via=via)
    points = points_of(config, cast("Directory", Records((far, hidden, near))))
    assert [each.owner for each in await points()] == [near.owner, far.owner]


async def test_points_that_are_configured_are_the_only_ones(tmp_path: Path) -> None:
    config = stage(tmp_path, f'via = ["{POINT}"]\n')
    points = points_of(config, cast("Directory", Records((record(1, 10, 20),))))
    assert [to_hex(each.owner) for each in await points()] == ["0x" + "33" * 20]
