"""Petals servers and a client of theirs, in a swarm of their own on loopback; tools/petals_env.sh installs them.

"Petals" here is Petals 2.2.0.post1 on hivemind 1.1.12, for which it was not written: petals_child.py mends the imports,
and every comparison says "patched".
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from .face import PeerError, PeerMissingError
from .server import ROOT

__all__ = [
    "INSTALLED",
    "NAME",
    "PetalsAnswer",
    "PetalsClient",
    "PetalsServer",
    "PetalsSwarm",
    "Span",
    "address_in",
    "complaint_in",
    "opened_petals",
    "require_petals",
    "route_now",
]

NAME: Final = "patched Petals 2.2.0.post1, hivemind 1.1.12"
INSTALLED: Final = ROOT / ".petals-venv" / "petals.txt"  # written last
_PYTHON: Final = ROOT / ".petals-venv" / "bin" / "python"
_CHILD: Final = Path(__file__).with_name("petals_child.py")
_UP_S: Final = 180.0
_ENDS_S: Final = 5.0
_PREFIX: Final = "plait-bench"
_ADDRESS: Final = re.compile(r"Running a server on \['(/ip4/[\d.]+/tcp/\d+/p2p/\w+)'")
_ROUTE: Final = re.compile(r"Route found: (.+)$", re.MULTILINE)
_FAILED: Final = re.compile(r"\(retry in [\d.]+ sec\): (\w+\([^:\n]*)")
_SPAN: Final = re.compile(r"(\d+):(\d+) via \S*?(\w{6})(?= |$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Blocks [first, last) and the end of the name of the peer that serves them."""

    first: int
    last: int
    peer: str


def require_petals() -> None:
    """Raise `PeerMissingError` unless Petals' environment was made."""
    if not INSTALLED.is_file():
        raise PeerMissingError("petals", "tools/petals_env.sh")


def address_in(log: str) -> str | None:
    """Return the address under which a server says that it runs; None before it does."""
    found = _ADDRESS.search(log)
    return found.group(1) if found else None


def complaint_in(log: str) -> str:
    """Return the newest failure of a step in a client's log, to its first colon; empty where there is none."""
    found = _FAILED.findall(log)
    return found[-1] if found else ""


def route_now(log: str) -> list[Span]:
    """Return the newest whole route in a client's log, later parts of it in their places; empty before there is one."""
    route: list[Span] = []
    for line in _ROUTE.findall(log):
        part = [Span(first=int(first), last=int(last), peer=peer) for first, last, peer in _SPAN.findall(line)]
        if part and part[0].first == 0 and part[-1].last >= max((span.last for span in route), default=0):
            route = part
        elif part:
            kept = [span for span in route if span.last <= part[0].first or span.first >= part[-1].last]
            route = sorted([*kept, *part], key=lambda span: span.first)
    return route


@dataclass(frozen=True, slots=True, kw_only=True)
class PetalsAnswer:
    """The ids that came, each `at` seconds after the request; `error` where Petals gave up."""

    ids: tuple[int, ...]
    at: tuple[float, ...]
    error: str = ""


@dataclass(slots=True, kw_only=True)
class PetalsServer:
    """A server over blocks [first, last), with the processes that it makes."""

    name: str
    first: int
    last: int
    process: Process
    log: Path
    address: str = ""

    def kill(self) -> None:
        """End all of its processes at once, as when its machine goes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    async def up(self, deadline_s: float = _UP_S) -> None:
        """Wait until it serves; raise `PeerError`."""
        try:
            async with asyncio.timeout(deadline_s):
                while "Started" not in (text := await asyncio.to_thread(_text, self.log)):
                    if self.process.returncode is not None:
                        raise PeerError(f"{self.name} ended with {self.process.returncode}:\n{text[-1_500:]}")
                    await asyncio.sleep(0.2)
        except TimeoutError:
            raise PeerError(f"{self.name} did not serve within {deadline_s:.0f} s; read {self.log}") from None
        self.address = address_in(text) or ""
        if not self.address:
            raise PeerError(f"{self.name} does not say where it runs; read {self.log}")


@dataclass(slots=True, kw_only=True)
class PetalsClient:
    """A client in a process of its own; one request at a time."""

    process: Process
    log: Path

    async def ask(
        self,
        prompt: Sequence[int],
        count: int,
        *,
        limit_s: float = 120.0,
        on_token: Callable[[int], None] = lambda _: None,
    ) -> PetalsAnswer:
        """Return `count` greedy ids; `on_token` is told how many there are. What came until `limit_s` counts.

        Raises:
            PeerError: the client ended.
        """
        if self.process.stdin is None:
            raise PeerError("the client has no input")
        self.process.stdin.write(json.dumps({"prompt": list(prompt), "count": count}).encode() + b"\n")
        began, ids, at = time.perf_counter(), list[int](), list[float]()
        try:
            async with asyncio.timeout(limit_s):
                while "token" in (said := await self._said()):
                    ids.append(said["token"])
                    at.append(time.perf_counter() - began)
                    on_token(len(ids))
        except TimeoutError:
            return PetalsAnswer(ids=tuple(ids), at=tuple(at), error=f"not ended after {limit_s:g} s")
        return PetalsAnswer(ids=tuple(said["ids"]), at=tuple(said["at"]), error=said.get("error", ""))

    def route(self) -> list[Span]:
        """Return the newest answer's route, mended parts in their places; raise `PeerError` where there is none."""
        route = route_now(_text(self.log))
        if not route:
            raise PeerError(f"the client found no route; read {self.log}")
        return route

    def complaint(self) -> str:
        """Return what it last said of a failed step; empty where none failed."""
        return complaint_in(_text(self.log))

    async def ready(self) -> None:
        """Wait until it has the model; raise `PeerError`."""
        try:
            async with asyncio.timeout(_UP_S):
                await self._said()
        except TimeoutError:
            raise PeerError(f"the client was not ready within {_UP_S:.0f} s; read {self.log}") from None

    async def _said(self) -> dict[str, Any]:
        line = await self.process.stdout.readline() if self.process.stdout is not None else b""
        if not line:
            raise PeerError(f"the client ended:\n{_text(self.log)[-1_500:]}")
        found: dict[str, Any] = json.loads(line)
        return found


@dataclass(slots=True, kw_only=True)
class PetalsSwarm:
    """Servers of one model, and clients of theirs; `opened_petals` makes and ends it."""

    model: Path
    logs: Path
    threads: int
    servers: list[PetalsServer] = field(default_factory=list[PetalsServer])
    _started: list[Process] = field(default_factory=list[Process])

    async def serve(self, name: str, first: int, last: int) -> PetalsServer:
        """Start a server and wait until it serves; raise `PeerError`."""
        where = f"/ip4/127.0.0.1/tcp/{_free_port()}"
        peers = ["--initial_peers", *self.peers] if self.servers else ["--new_swarm"]
        process, log = await self._start(
            name,
            "server",
            str(self.model),
            *("--dht_prefix", _PREFIX, "--block_indices", f"{first}:{last}", "--throughput", "1"),
            *("--device", "cpu", "--torch_dtype", "float32", "--quant_type", "none", "--skip_reachability_check"),
            *("--host_maddrs", where, "--announce_maddrs", where),
            *peers,
        )
        server = PetalsServer(name=name, first=first, last=last, process=process, log=log)
        await server.up()
        self.servers.append(server)
        return server

    async def client(self, name: str, *, timeout_s: float = 180.0) -> PetalsClient:
        """Start a client that knows all servers that run now; raise `PeerError`.

        `timeout_s`: how long it waits for a server to answer a step; the default is Petals' own.
        """
        process, log = await self._start(name, "client", str(self.model), _PREFIX, f"{timeout_s:g}", *self.peers)
        client = PetalsClient(process=process, log=log)
        await client.ready()
        return client

    @property
    def peers(self) -> list[str]:
        """Return the addresses of the servers that run."""
        return [server.address for server in self.servers if server.process.returncode is None]

    def server_of(self, span: Span) -> PetalsServer:
        """Return the server that a route names; raise `PeerError`."""
        for server in self.servers:
            if server.address.endswith(span.peer):
                return server
        raise PeerError(f"no server is called ...{span.peer}")

    async def end(self) -> None:
        """End every process that was started, and those that they made."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            for process in self._started:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, sign)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_ENDS_S):
                    await asyncio.gather(*(process.wait() for process in self._started))

    async def _start(self, name: str, *arguments: str) -> tuple[Process, Path]:
        log = self.logs / f"{name}.log"
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment |= {"OMP_NUM_THREADS": str(self.threads), "HF_HUB_OFFLINE": "1", "HF_HOME": str(self.logs / "hf")}
        with log.open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                *(str(_PYTHON), "-P", str(_CHILD), *arguments),
                stdin=PIPE,
                stdout=PIPE if arguments[0] == "client" else errors,
                stderr=errors,
                env=environment,
                cwd=self.logs,
                start_new_session=True,  # so that a server's many processes can be ended together
            )
        self._started.append(process)
        return process, log


@asynccontextmanager
async def opened_petals(model: Path, logs: Path, *, threads: int = 1) -> AsyncGenerator[PetalsSwarm]:
    """Make an empty swarm for a folder of weights; raise `PeerMissingError` where Petals is not installed."""
    require_petals()
    await asyncio.to_thread(logs.mkdir, parents=True, exist_ok=True)
    swarm = PetalsSwarm(model=model, logs=logs, threads=threads)
    try:
        yield swarm
    finally:
        await swarm.end()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
