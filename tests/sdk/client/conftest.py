from __future__ import annotations

from pathlib import Path

import pytest
from tests.sdk.client.fakes import FakeEdge, FakeGateway, World, ids_of, says
from tests.sdk.swarm import Swarm

from plait.chain.abi import CONTRACTS
from plait.chain.deployments import Deployment, Parameters, Placed
from plait.protocol.typed import Key

ANSWER = "Because short waves scatter more, as Rayleigh found; so it is blue. Voilà."


@pytest.fixture
def world(tmp_path: Path) -> World:
    deployment = Deployment(
        chain_id=31337,
        block=0,
        block_hash=bytes(32),
        deployer=bytes(20),
        contracts={name: Placed(address=b"\xc0" * 20, code_hash=bytes(32)) for name in CONTRACTS},
        parameters=Parameters(),
    )
    deployment.save(tmp_path / "deployment.json")
    swarm, key = Swarm(), Key.generate()
    edge = FakeEdge(swarm=swarm, payer=key.address)
    gateway = FakeGateway(swarm, edge, tmp_path, says(ids_of(ANSWER)))
    return World(
        swarm=swarm,
        edge=edge,
        gateway=gateway,
        key=key,
        home=tmp_path / "home",
        deployment=tmp_path / "deployment.json",
    )
