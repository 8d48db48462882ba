"""The local network under test: one for all tests of a session, its processes killed and started again by hand."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from plait import AsyncPlait
from plait.chain import ChainReader, ChainWriter, Deployment
from plait.chain.abi import artifact
from plait.chain.logs import decode, read_logs
from plait.protocol.ids import Address, Hash, address, channel_id, to_hex
from plait.protocol.pb import gateway_pb2
from plait.protocol.typed import Key

UP_S = 400.0  # on a machine where everything else runs as well
DOWN_S = 40.0
CLAIMED_S = 120.0
COIN_WEI = 10**19
TOKEN = 10**6
MODEL = "smollm2-135m"
# The prices of the local network, in base units: of a million tokens, and of a million steps x blocks.
INPUT_PRICE, OUTPUT_PRICE, STAGE_PRICE = 2_000_000, 8_000_000, 60_000
NODES = ("stage-ash", "stage-birch", "stage-cedar", "stage-spare", "worker", "gateway")

# What a restarted node is started through: it must not outlive the tests, however they end.
_LAUNCH = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def talk(question: str) -> list[dict[str, str]]:
    """Return a conversation of one question."""
    return [{"role": "user", "content": question}]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """One claim of one channel as the chain has it; `cumulative` in base units."""

    cumulative: int
    jobs: int
    root: Hash
    tx: Hash


@dataclass(slots=True, kw_only=True)
class Node:
    """One node process: where it lives, who owns it, which process it is now."""

    name: str
    owner: Address
    home: Path
    log: Path
    pid: int
    process: subprocess.Popen[bytes] | None = None  # only where we started it

    @property
    def alive(self) -> bool:
        """Whether it runs; a zombie that nobody waited for does not."""
        if self.process is not None:
            return self.process.poll() is None
        try:
            status = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8")
        except FileNotFoundError:
            return False
        return status.rpartition(") ")[2][0] not in "ZX"

    @property
    def ready(self) -> bool:
        """Whether it says that it serves."""
        return (self.home / "ready.json").exists()

    def text(self) -> str:
        """Return its log."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        os.kill(self.pid, signal.SIGKILL)


async def until(happened: Callable[[], bool], otherwise: str, *, within_s: float = 60.0) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + within_s
    while not happened():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{otherwise} within {within_s:g} s")
        await asyncio.sleep(0.05)


@dataclass(slots=True, kw_only=True)
class LiveNetwork:
    """A whole network in processes of its own. `start` it once, `stop` ends every process."""

    folder: Path
    rpc: str = ""
    gateway_url: str = ""
    broker: str = ""
    model: Hash = field(default=Hash(bytes(32)))
    deployment_file: Path = Path()
    deployment: Deployment = field(init=False)
    nodes: dict[str, Node] = field(default_factory=dict[str, Node])
    _supervisor: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start it and wait until it serves."""
        log = self.folder.parent / f"{self.folder.name}.log"
        command = [
            sys.executable,
            "-c",
            _LAUNCH,
            "-m",
            "plait_node.localnet",
            "serve",
            "--folder",
            str(self.folder),
            "--no-restart",
        ]
        with log.open("wb") as output:
            self._supervisor = subprocess.Popen(  # noqa: ASYNC220 -- returns at once
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )

        def up() -> bool:
            text = log.read_text(encoding="utf-8")
            if self._supervisor is not None and self._supervisor.poll() is not None:
                raise RuntimeError(f"the local network did not come up:\n{text}")
            return "\nup " in text

        await until(up, "the local network was not up", within_s=UP_S)
        self._read(json.loads((self.folder / "network.json").read_text(encoding="utf-8")))
        await self._quoted()

    def _read(self, facts: dict[str, Any]) -> None:
        self.rpc, self.gateway_url, self.broker = facts["rpc"], facts["gateway"], facts["broker"]
        self.model = Hash(bytes.fromhex(facts["modelId"][2:]))
        self.deployment_file = Path(facts["deployment"])
        self.deployment = Deployment.load(self.deployment_file)
        for each in facts["processes"]:
            self.nodes[each["name"]] = Node(
                name=each["name"],
                owner=address(each["owner"]),
                home=Path(each["home"]),
                log=Path(each["log"]),
                pid=int(each["pid"]),
            )

    def stop(self) -> None:
        """End every process that was started."""
        for node in self.nodes.values():
            if node.process is not None:
                _end(node.process)
        if self._supervisor is not None:
            _end(self._supervisor)

    def setting(self, name: str, section: str, field: str) -> str:
        """Return what a node's configuration says."""
        return tomllib.loads((self.nodes[name].home / "node.toml").read_text(encoding="utf-8"))[section][field]

    def folder_of(self, part: str) -> Path:
        """Return where a part of the network keeps its files: broker, logs, models."""
        return self.deployment_file.parent.parent / part

    def owner(self, name: str) -> Address:
        """Return who owns a node."""
        return self.nodes[name].owner

    def by_owner(self, owner: Address | str) -> Node:
        """Return the stage of an owner."""
        wanted = address(owner)
        return next(node for name, node in self.nodes.items() if node.owner == wanted and name.startswith("stage"))

    def service_key(self, name: str) -> Key:
        """Return a node's service key, from its folder."""
        return Key.from_hex((self.nodes[name].home / "service.key").read_text(encoding="utf-8").strip())

    async def restart(self, name: str) -> None:
        """Start a node that was killed again, and wait until it serves."""
        node = self.nodes[name]
        await until(lambda: not node.alive, f"{name} does not die")
        (node.home / "ready.json").unlink(missing_ok=True)
        node.process = launch(node.home / "node.toml", node.log)
        node.pid = node.process.pid

        def ready() -> bool:
            if not node.alive:
                raise RuntimeError(f"{name} ended:\n{node.text()[-2_000:]}")
            return node.ready

        await until(ready, f"{name} was not ready", within_s=UP_S)

    async def revive(self) -> None:
        """Start every node again that a test has killed or told to stop, and wait until the others see it."""
        for name, node in self.nodes.items():
            if not node.alive or not node.ready:
                await self.restart(name)
        await self._quoted()

    async def _quoted(self) -> None:
        """Wait until the gateway knows of a worker: a node that is ready is seen by the others a moment later."""
        call = gateway_pb2.QuoteCall(model=self.model).SerializeToString()
        async with httpx.AsyncClient(base_url=self.gateway_url, timeout=60.0) as http, asyncio.timeout(UP_S):
            while (await http.post("/v1/quotes", content=call)).status_code != 200:  # noqa: ASYNC110 -- it tells nobody
                await asyncio.sleep(0.5)

    async def call(self, method: str, *params: object) -> Any:  # noqa: ANN401 JSON
        """Call a JSON-RPC method of the chain."""
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
        async with httpx.AsyncClient(timeout=60.0) as http:
            answer = (await http.post(self.rpc, json=body)).json()
        if "error" in answer:
            raise AssertionError(f"{method}: {answer['error']}")
        return answer["result"]

    async def wallet(self, *, tokens: int = 10 * TOKEN) -> Key:
        """Return a fresh key with coins for gas and `tokens` base units."""
        key = Key.generate()
        await self.call("anvil_setBalance", to_hex(key.address), hex(COIN_WEI))
        if tokens:
            async with self.writer(key) as writer:
                await writer.mint(key.address, tokens)
        return key

    @asynccontextmanager
    async def writer(self, key: Key) -> AsyncIterator[ChainWriter]:
        """Yield what sends transactions with a key."""
        async with await ChainReader.connect(self.rpc, self.deployment) as reader:
            yield ChainWriter(reader, key)

    @asynccontextmanager
    async def reader(self) -> AsyncIterator[ChainReader]:
        """Yield a reader of the chain."""
        async with await ChainReader.connect(self.rpc, self.deployment) as reader:
            yield reader

    @asynccontextmanager
    async def payer(self, home: Path, *, key: Key | None = None, **settings: Any) -> AsyncIterator[AsyncPlait]:
        """Yield a client, of a fresh wallet unless one is given."""
        paying = key or await self.wallet()
        given = {"rpc": self.rpc, "deployment": self.deployment, "home": home} | settings
        async with AsyncPlait(key=paying, **given) as client:
            yield client

    async def claims(self, channel: Hash) -> list[Claimed]:
        """Return a channel's claims, oldest first, read from the chain's logs."""
        async with self.reader() as reader:
            head = await reader.block()
            topics = [[artifact("Channels").event("VoucherClaimed").topic], [channel]]
            where = [self.deployment.address("Channels")]
            first = self.deployment.block
            found: list[Claimed] = []
            async for part in read_logs(reader.rpc, addresses=where, first=first, last=head.number, topics=topics):
                for log in part.logs:
                    values = decode(self.deployment, log).values  # type: ignore[union-attr]
                    found.append(
                        Claimed(
                            cumulative=values["cumulative"],
                            jobs=values["jobs"],
                            root=Hash(values["receiptsRoot"]),
                            tx=log.tx,
                        )
                    )
            return found

    async def settled(self, channel: Hash, *, count: int = 1, cumulative: int = 0) -> list[Claimed]:
        """Return a channel's claims once there are `count` of them and the last reaches `cumulative`."""
        async with asyncio.timeout(CLAIMED_S):
            while len(found := await self.claims(channel)) < count or found[-1].cumulative < cumulative:  # noqa: ASYNC110 -- a chain tells nobody
                await asyncio.sleep(0.2)
        return found

    def hop(self, stage: str) -> Hash:
        """Return the channel over which the worker pays a stage."""
        return channel_id(self.owner("worker"), self.owner(stage), self.service_key("worker").address)


def launch(config: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start a node process as its operator would; its output goes to `log`."""
    command = [sys.executable, "-c", _LAUNCH, "-m", "plait_node", "run", "--config", str(config)]
    quiet = {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **quiet},
            start_new_session=True,
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        process.wait(DOWN_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
