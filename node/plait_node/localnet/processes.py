"""Child processes that cannot outlive their parent, each with a log file and a way to tell that it is up."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from plait_node.errors import LocalnetError

_STOP_S = 8.0
_PR_SET_PDEATHSIG = 1


def find_program(name: str) -> str:
    """Return the path of a program from this environment's bin folder or PATH."""
    folders = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    found = shutil.which(name, path=folders)
    if found is None:
        raise LocalnetError(f"{name} is not installed: run `make setup`")
    return found


def _die_with_parent() -> None:
    """Ask Linux to end this child when its parent dies, however it dies; elsewhere the parent's own exit must do."""
    os.setsid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@dataclass(slots=True, kw_only=True)
class Child:
    """A running child and where it writes."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        """The operating system's id of the process."""
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self.process.poll() is None

    def tail(self, lines: int = 15) -> str:
        """Return the last lines of its log."""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


class Children:
    """Starts children and ends every one of them."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._children: list[Child] = []
        logs.mkdir(parents=True, exist_ok=True)

    @property
    def all(self) -> tuple[Child, ...]:
        """Every child that was started, in order."""
        return tuple(self._children)

    def start(self, name: str, command: Sequence[str], *, env: Mapping[str, str] | None = None) -> Child:
        """Start a child; its output goes to `<name>.log`."""
        log = self._logs / f"{name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                preexec_fn=_die_with_parent,  # noqa: PLW1509 -- the parent has one thread when it forks
            )
        child = Child(name=name, process=process, log=log)
        self._children.append(child)
        return child

    async def stop_all(self) -> None:
        """End every child in reverse order: politely, then by force."""
        running = [child for child in reversed(self._children) if child.alive]
        for child in running:
            with contextlib.suppress(ProcessLookupError):
                child.process.terminate()
        with contextlib.suppress(TimeoutError, subprocess.TimeoutExpired):
            async with asyncio.timeout(_STOP_S):
                for child in running:
                    await asyncio.to_thread(child.process.wait, _STOP_S)
        for child in running:
            if child.alive:
                child.process.kill()
                child.process.wait()


async def until_up(child: Child, up: Callable[[], Awaitable[bool]], *, deadline_s: float) -> None:
    """Wait until `up` says yes; raise `LocalnetError` with the log's tail when the child dies or takes too long."""
    try:
        async with asyncio.timeout(deadline_s):
            while not await up():
                if not child.alive:
                    raise LocalnetError(f"{child.name} ended with {child.process.returncode}:\n{child.tail()}")
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise LocalnetError(f"{child.name} was not up after {deadline_s:.0f} s:\n{child.tail()}") from None
