"""The three-server cluster of deploy/nats, started as an operator would, and ways to hurt it."""

from __future__ import annotations

import os
import queue
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from plait.protocol.ids import Address, Group, Hash, to_hex
from plait_node.broker import BrokerAccess, NatsBroker
from plait_node.broker.connection import Connection
from plait_node.broker.groups import groups_of
from plait_node.ports import claim

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "deploy" / "nats" / "start-local.sh"
UP_S = 90.0
NAMES = ("n1", "n2", "n3")


@dataclass(slots=True, kw_only=True)
class Cluster:
    """A running cluster with one gateway, two workers of one model, and one of another."""

    folder: Path
    gateway: Address = field(default_factory=lambda: Address(secrets.token_bytes(20)))
    workers: tuple[Address, ...] = field(
        default_factory=lambda: tuple(Address(secrets.token_bytes(20)) for _ in range(3))
    )
    models: tuple[Hash, Hash] = field(
        default_factory=lambda: (Hash(secrets.token_bytes(32)), Hash(secrets.token_bytes(32)))
    )
    url: str = ""
    _script: subprocess.Popen[str] | None = None

    @property
    def group(self) -> Group:
        """One of the groups that the first two workers may be in."""
        return groups_of(self.models[0], "cpu")[0]

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    def start(self) -> None:
        """Start the script and wait until it says that jobs can be published."""
        beside = str(Path(sys.executable).parent)
        environment = {**os.environ, "PATH": os.pathsep.join((beside, os.environ["PATH"])), "OMP_NUM_THREADS": "1"}
        command = [str(SCRIPT), str(self.folder), str(free_ports()), "--gateway", to_hex(self.gateway)]
        for worker, model in zip(self.workers, (self.models[0], *self.models), strict=True):
            command += ["--worker", f"{to_hex(worker)}:{to_hex(model)}:cpu"]
        self._script = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        said: list[str] = []
        for line in lines_of(self._script, UP_S):
            said.append(line)
            if line.startswith("ready "):
                self.url = line.split()[1]
                return
        raise AssertionError("the cluster did not come up:\n" + "".join(said))

    def stop(self) -> None:
        """End it as Ctrl-C does."""
        if self._script is not None:
            self._script.terminate()
            self._script.wait(timeout=100)
            if self._script.stdout is not None:
                self._script.stdout.close()

    def pid(self, name: str) -> int:
        """Return the process of a server."""
        return int((self.folder / name / "nats.pid").read_text())

    def kill(self, name: str) -> None:
        """End a server as a crash does."""
        os.kill(self.pid(name), signal.SIGKILL)

    def restart(self, name: str) -> subprocess.Popen[bytes]:
        """Start a killed server again; the caller ends it."""
        server = Path(sys.executable).with_name("nats-server")
        return subprocess.Popen([str(server), "-c", "nats.conf"], cwd=self.folder / name)

    def seed(self, beginning: str) -> BrokerAccess:
        """Return the access of the user whose seed's file begins so."""
        if beginning == "operator":
            return BrokerAccess(ca=self.ca, nkey=self.folder / "operator" / "operator.seed")
        (file,) = (self.folder / "seeds").glob(f"{beginning}*.seed")
        return BrokerAccess(ca=self.ca, nkey=file)

    def worker_access(self, number: int) -> BrokerAccess:
        return self.seed(f"worker-{self.workers[number].hex()[:16]}")

    async def as_gateway(self) -> NatsBroker:
        return await NatsBroker.connect(self.url, access=self.seed("gateway"))

    async def as_worker(self, number: int) -> NatsBroker:
        return await NatsBroker.connect(self.url, access=self.worker_access(number))

    async def as_operator(self) -> Connection:
        return await Connection.open(self.url, name="test", timeout_s=10.0, access=self.seed("operator"))

    async def leader(self, stream: str) -> str:
        """Return the server that leads a stream now."""
        operator = await self.as_operator()
        try:
            info = await operator._stream.stream_info(stream)
        finally:
            await operator.close()
        assert info.cluster is not None
        assert info.cluster.leader is not None
        return info.cluster.leader


def free_ports() -> int:
    """Return a port whose next two, and the tenth to twelfth after it, are free too."""
    for _ in range(200):
        first = 20_000 + secrets.randbelow(12_000)
        if all(claim(first + offset) for offset in (0, 1, 2, 10, 11, 12)):
            return first
    raise AssertionError("no free ports")


def lines_of(process: subprocess.Popen[str], deadline_s: float) -> Sequence[str]:
    """Return a process's lines up to the one that begins with `ready `, its end, or the deadline."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        if process.stdout is not None:
            for line in process.stdout:
                lines.put(line)
                if line.startswith("ready "):
                    break
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    found: list[str] = []
    while True:
        try:
            line = lines.get(timeout=deadline_s)
        except queue.Empty:
            return found
        if line is None:
            return found
        found.append(line)
