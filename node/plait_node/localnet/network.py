"""A whole network on loopback: chain, contracts, model, stakes, channels, broker and six node processes."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from plait.chain.deploy import deploy
from plait.chain.deployments import LOCAL
from plait.chain.lane import Patience
from plait.chain.reader import ChainReader
from plait.chain.writer import ChainWriter
from plait.protocol.ids import to_hex
from plait.protocol.typed import Key
from plait_node.broker.server import LocalServer
from plait_node.home import Home
from plait_node.localnet.anvil import Anvil
from plait_node.localnet.plan import (
    HOP_DEPOSIT,
    MODEL,
    PAYER_FUNDS,
    ROLE_BITS,
    STAKE,
    Operator,
    Process,
    Shared,
    toml_of,
)
from plait_node.localnet.processes import Child, Children, until_up
from plait_node.models import publish
from plait_node.ports import free_port
from plait_node.selector.machine import measure
from plait_node.selector.observe import HARDWARE, save_hardware

_NODE_UP_S = 300.0
_PATIENCE = Patience(deadline_s=60.0, poll_s=0.02)
_STAGES = {"ash": (0, 10), "birch": (10, 20), "cedar": (20, 30), "spare": (10, 20)}
Say = Callable[[str], None]


def operators() -> dict[str, Operator]:
    """Return the five operators: one with gateway and worker, four with a stage each."""
    gate = Operator(name="gate", roles=ROLE_BITS["gateway"] | ROLE_BITS["worker"])
    return {"gate": gate} | {name: Operator(name=name, roles=ROLE_BITS["stage"]) for name in _STAGES}


def processes(owners: dict[str, Operator]) -> tuple[Process, ...]:
    """Return the six processes, each with ports of its own."""

    def process(name: str, owner: str, role: str, blocks: tuple[int, int] = (0, 0)) -> Process:
        first, last = blocks
        operator = owners[owner]
        return Process(
            name=name, operator=operator, role=role, port=free_port(), dht_port=free_port(), first=first, last=last
        )

    stages = [process(f"stage-{name}", name, "stage", blocks) for name, blocks in _STAGES.items()]
    return (*stages, process("worker", "gate", "worker"), process("gateway", "gate", "gateway"))


@dataclass(slots=True, kw_only=True)
class Network:
    """A local network: `start` it, and `stop` it whatever happened."""

    folder: Path
    say: Say = print
    restart: bool = False  # start the worker again when it ends, as an operator's service manager does
    payer: Key = field(default_factory=Key.generate)
    owners: dict[str, Operator] = field(default_factory=operators)
    running: dict[str, Child] = field(init=False, default_factory=dict[str, Child])
    _children: Children = field(init=False)
    _broker: LocalServer | None = field(init=False, default=None)
    _anvil: Anvil = field(init=False)
    _processes: tuple[Process, ...] = field(init=False)
    _shared: Shared = field(init=False)
    _keeping: asyncio.Task[None] | None = field(init=False)

    def __post_init__(self) -> None:
        self._keeping = None
        self._children = Children(self.folder / "logs")
        self._processes = processes(self.owners)

    async def stop(self) -> None:
        """End every process."""
        if self._keeping is not None:
            self._keeping.cancel()
        await self._children.stop_all()
        if self._broker is not None:
            await self._broker.stop()

    async def start(self) -> None:
        """Start everything; raise `LocalnetError` when a part does not come up. `stop` ends what was started."""
        self._anvil = await Anvil.start(self._children)
        self.say(f"chain     {self._anvil.url} (id 31337)")
        deployer = Key.generate()
        for key in (deployer, self.payer, *(owner.key for owner in self.owners.values())):
            await self._anvil.fund(key.address, ether=100)
        for process in self._processes:
            await self._anvil.fund(process.service.address, ether=100)
        deployment = await deploy(self._anvil.url, deployer, LOCAL, patience=_PATIENCE)
        deployment_file = self.folder / "deployments" / f"{deployment.chain_id}.json"
        deployment.save(deployment_file)
        self._broker = await LocalServer.start(self.folder / "broker")
        self.say(f"contracts {len(deployment.addresses)} deployed; broker {self._broker.url}")
        async with await ChainReader.connect(self._anvil.url, deployment) as reader:
            model = await self._fund_and_publish(reader, deployer)
            self._shared = Shared(
                rpc=self._anvil.url,
                deployment=deployment_file,
                broker=self._broker.url,
                models=self.folder / "models",
                model=model,
            )
            await self._register(reader)
        await self._measure()
        for process in self._processes:
            self.start_node(process.name)
        self.write_summary()
        await asyncio.gather(*(self.until_ready(process.name) for process in self._processes))
        self.write_summary()
        if self.restart:
            self._keeping = asyncio.create_task(self._keep_up("worker"))
        self.say("nodes     " + ", ".join(self.running))

    async def _fund_and_publish(self, reader: ChainReader, deployer: Key) -> str:
        writer = ChainWriter(reader, deployer, patience=_PATIENCE)
        await writer.mint(self.payer.address, PAYER_FUNDS)
        for owner in self.owners.values():
            await writer.mint(owner.key.address, 10 * STAKE)
        published = await publish(MODEL, self.folder / "models", writer)
        self.say(f"model     {MODEL} {to_hex(published.model_id)[:18]}... published")
        return to_hex(published.model_id)

    async def _register(self, reader: ChainReader) -> None:
        """Register each operator with stake, service keys and DHT key; open the gate's channels to the stages."""
        writers = {name: ChainWriter(reader, owner.key, patience=_PATIENCE) for name, owner in self.owners.items()}

        async def join(name: str, writer: ChainWriter) -> None:
            mine = [process for process in self._processes if process.operator.name == name]
            seed = os.urandom(32)
            endpoint = self._endpoint(mine)
            await writer.register_node(self.owners[name].roles, endpoint, _ed25519_public(seed))
            await writer.stake(STAKE)
            for process in mine:
                await writer.add_service_key(process.service)
                home = Home.create(self.folder / "nodes" / process.name, service=process.service, dht_seed=seed)
                (home.path / "node.toml").write_text(toml_of(process, self._shared), encoding="utf-8")

        await asyncio.gather(*(join(name, writer) for name, writer in writers.items()))
        worker = next(process for process in self._processes if process.role == "worker")
        for name in _STAGES:
            await writers["gate"].open_channel(self.owners[name].key.address, worker.service.address, HOP_DEPOSIT)
        self.say(f"stakes    {len(writers)} nodes registered and staked, {len(_STAGES)} hop channels open")

    async def _measure(self) -> None:
        """Measure this machine for the worker, while nothing else runs: a worker does it beside its first jobs."""
        facts = await asyncio.to_thread(measure, pause_s=0.0)
        worker = next(process for process in self._processes if process.role == "worker")
        save_hardware(Home(self.folder / "nodes" / worker.name).selector_folder / HARDWARE, facts)

    def _endpoint(self, mine: list[Process]) -> str:
        http = [f"http://127.0.0.1:{process.port}" for process in mine if process.role == "gateway"]
        return " ".join([*http, f"dht://127.0.0.1:{mine[0].dht_port}"])

    def start_node(self, name: str) -> Child:
        """Start, or start again, one node process."""
        home = Home(self.folder / "nodes" / name)
        home.clear_ready()
        command = [sys.executable, "-m", "plait_node", "run", "--config", str(home.path / "node.toml")]
        child = self._children.start(name, command, env={"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"})
        self.running[name] = child
        return child

    async def _keep_up(self, name: str) -> None:
        """Start a node process again whenever it ends."""
        while True:
            await asyncio.sleep(0.2)
            if not self.running[name].alive:
                self.start_node(name)
                self.write_summary()

    async def until_ready(self, name: str) -> None:
        """Wait until a node process serves; raise `LocalnetError` with its log when it does not."""
        home = Home(self.folder / "nodes" / name)

        async def ready() -> bool:
            return home.ready_file.exists()

        await until_up(self.running[name], ready, deadline_s=_NODE_UP_S)

    @property
    def gateway_url(self) -> str:
        """Where payers reach the gateway."""
        return next(f"http://127.0.0.1:{process.port}" for process in self._processes if process.role == "gateway")

    @property
    def summary_file(self) -> Path:
        """What a program needs to use the network, as JSON; it holds the payer's key."""
        return self.folder / "network.json"

    def write_summary(self) -> None:
        """Write `network.json`, readable by its owner alone."""
        facts = {
            "rpc": self._shared.rpc,
            "deployment": str(self._shared.deployment),
            "broker": self._shared.broker,
            "gateway": self.gateway_url,
            "model": MODEL,
            "modelId": self._shared.model,
            "payerKey": self.payer.secret_hex(),
            "supervisor": os.getpid(),
            "processes": [self._facts(process) for process in self._processes],
        }
        part = self.summary_file.with_suffix(".part")
        part.touch(mode=0o600)
        part.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        part.replace(self.summary_file)

    def _facts(self, process: Process) -> dict[str, object]:
        child = self.running.get(process.name)
        return {
            "name": process.name,
            "role": process.role,
            "owner": to_hex(process.operator.key.address),
            "blocks": [process.first, process.last] if process.role == "stage" else None,
            "pid": child.pid if child else None,
            "log": str(child.log) if child else None,
            "home": str(self.folder / "nodes" / process.name),
        }


def _ed25519_public(seed: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
