"""Nodes that join with nothing but a key: blocks chosen, weights fetched from a URL and from a peer, jobs served."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from chain_tests.live.network import MODEL, STAGE_PRICE, TOKEN, UP_S, LiveNetwork, launch, talk, until

from plait.chain import STAGE
from plait.client.answers import ChatCompletion
from plait.protocol.ids import Address, to_hex
from plait.protocol.typed import Key
from plait_node.home import Home
from plait_node.listener import serve_app
from plait_node.models.giving import TensorShelf, make_weights_app
from plait_node.ports import free_port
from plait_node.swarm import DhtKey

pytestmark = pytest.mark.timeout(400)


@dataclass(slots=True, kw_only=True)
class Joiner:
    """A staked stage with an empty folder of models."""

    owner: Address
    home: Home
    gives: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.home.path.with_suffix(".log")

    @property
    def blocks(self) -> tuple[int, int]:
        kept = json.loads((self.home.path / "blocks.json").read_text(encoding="utf-8"))
        return kept["first"], kept["last"]

    async def start(self, net: LiveNetwork, *, serve: str, fetch: str | None = None) -> None:
        """Run it until it serves; `serve` says which blocks, `fetch` where from in place of what the chain says."""
        text = json.dumps
        lines = [
            'home = "."',
            f"rpc = {text(net.rpc)}",
            f"deployment = {text(str(net.deployment_file))}",
            f"owner = {text(to_hex(self.owner))}",
            'roles = ["stage"]',
            'models = "models"',
            *([f"fetch = [{text(fetch)}]"] if fetch else []),
            f'[give]\nlisten = "127.0.0.1:{self.gives}"',
            f'[dht]\nlisten = "127.0.0.1:{free_port()}"',
            f'[stage]\nmodel = {text(to_hex(net.model))}\nlisten = "127.0.0.1:0"\nprice = {STAGE_PRICE}\n{serve}',
        ]
        (self.home.path / "node.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
        self.process = launch(self.home.path / "node.toml", self.log)
        await until((self.home.path / "ready.json").exists, f"{self.log} says no more", within_s=UP_S)

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@contextmanager
def joiners(*each: Joiner) -> Generator[None]:
    try:
        yield
    finally:
        for one in each:
            one.end()


async def staked(net: LiveNetwork, folder: Path) -> Joiner:
    service, seed, gives = Key.generate(), os.urandom(32), free_port()
    owner = await net.wallet(tokens=1_000 * TOKEN)
    async with net.writer(owner) as writer:
        endpoint = f"dht://127.0.0.1:{free_port()} weights://127.0.0.1:{gives}"
        await writer.register_node(STAGE, endpoint, DhtKey(seed).public)
        await writer.stake(500 * TOKEN)
        await writer.add_service_key(service)
    return Joiner(owner=owner.address, home=Home.create(folder, service=service, dht_seed=seed), gives=gives)


@pytest.fixture
async def mirror(net: LiveNetwork) -> AsyncGenerator[str]:
    shelf, port = TensorShelf(net.folder_of("models")), asyncio.get_running_loop().create_future()
    app = make_weights_app(shelf, bytes_a_second=1 << 30)
    serving = asyncio.create_task(serve_app(app, host="127.0.0.1", port=0, ready=port.set_result))
    yield f"http://127.0.0.1:{await port}"
    serving.cancel()
    await asyncio.wait({serving})
    shelf.close()


async def ask(net: LiveNetwork, home: Path) -> ChatCompletion:
    async with net.payer(home) as client:
        return await client.chat.completions.create(model=MODEL, messages=talk("Hi."), max_tokens=8, temperature=0)


async def test_nodes_that_join_fetch_their_blocks_from_a_url_and_from_a_peer_and_serve(
    opening: LiveNetwork, mirror: str, tmp_path: Path
) -> None:
    net = opening
    before = await ask(net, tmp_path / "payer")
    first, second = [await staked(net, tmp_path / name) for name in ("dogwood", "elm")]
    with joiners(first, second):
        await first.start(net, serve="blocks = 10", fetch=mirror)
        begin, end = first.blocks
        weights = first.home.path / "models" / to_hex(net.model) / "weights.gguf"
        assert 0 < weights.stat().st_blocks * 512 < 0.6 * weights.stat().st_size  # its blocks, and nobody else's

        await second.start(net, serve=f"first = {begin}\nlast = {end}")
        assert f"fetched model={to_hex(net.model)}" in second.log.read_text(encoding="utf-8")

        first.end()
        for name, node in net.nodes.items():
            if name.startswith("stage") and int(net.setting(name, "stage", "first")) == begin:
                node.kill()
        after = await ask(net, tmp_path / "payer")
        assert to_hex(second.owner) in [stage.node for stage in after.job.route]
        assert after.choices[0].message.content == before.choices[0].message.content
