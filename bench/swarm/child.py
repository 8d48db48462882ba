"""A process that is told in JSON what to be, says in JSON when it is ready, and answers lines with lines."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn

__all__ = ["Child", "ChildError", "answer_lines", "started", "to_the_end"]

_READY_S: Final = 240.0  # a model is read and its code compiled
_ANSWER_S: Final = 20.0
_STOP_S: Final = 8.0
_ROOT: Final = Path(__file__).resolve().parents[2]

Facts = dict[str, Any]
Wrap = Callable[[Sequence[str]], Sequence[str]]  # what runs a command on another host


class ChildError(Exception):
    """A child ended, or said nothing in time; the message has the end of its log."""


@dataclass(slots=True, kw_only=True)
class Child:
    """A running child; what it said when it was ready is in `facts`."""

    name: str
    process: Process
    log: Path
    facts: Facts = field(default_factory=dict[str, Any])

    @property
    def pid(self) -> int:
        """Return the process's id."""
        return self.process.pid

    async def ask(self, line: str) -> Facts:
        """Send a line and return what it answers; raise `ChildError`."""
        if self.process.stdin is None:
            raise ChildError(f"{self.name} has no input")
        self.process.stdin.write(line.encode() + b"\n")
        return await self.said(_ANSWER_S)

    async def said(self, deadline_s: float) -> Facts:
        """Return the next line that it says; raise `ChildError`."""
        try:
            async with asyncio.timeout(deadline_s):
                line = await self.process.stdout.readline() if self.process.stdout is not None else b""
        except TimeoutError:
            raise ChildError(f"{self.name} said nothing for {deadline_s:g} s\n{self._tail()}") from None
        if not line:
            raise ChildError(f"{self.name} ended\n{self._tail()}")
        found: Facts = json.loads(line)
        return found

    def kill(self) -> None:
        """End it without a word, if it has not ended."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()

    def freeze(self) -> None:
        """Stop it where it is; `thaw` lets it go on."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self.process.send_signal(signal.SIGCONT)

    async def stop(self) -> None:
        """End it: it does so when its input ends, by force if it takes too long."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            self.thaw()
        try:
            async with asyncio.timeout(_STOP_S):
                await self.process.wait()
        except TimeoutError:
            self.kill()
            await self.process.wait()

    def _tail(self) -> str:
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])


async def started(
    module: str,
    told: Mapping[str, Any],
    *,
    name: str,
    logs: Path,
    threads: int = 1,
    wrap: Wrap = list,
    on_start: Callable[[int], None] = lambda _: None,
) -> Child:
    """Run a module until it is ready, with `threads` threads; `on_start` gets its process id before it does anything.

    Raises:
        ChildError: it ended, or was not ready in time.
    """
    log = logs / f"{name}.log"
    command = wrap([sys.executable, "-m", module, json.dumps(dict(told))])
    places = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": places}
    await asyncio.to_thread(logs.mkdir, parents=True, exist_ok=True)
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=PIPE, stderr=errors, env=environment, cwd=_ROOT
        )
    child = Child(name=name, process=process, log=log)
    on_start(process.pid)
    try:
        child.facts = await child.said(_READY_S)
    except BaseException:
        child.kill()
        await process.wait()
        raise
    return child


async def answer_lines(ready: Facts, answer: Callable[[str], Awaitable[Facts]]) -> None:
    """In a child: say what is ready, then answer each line, until the parent closes this child's input or ends."""
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    print(json.dumps(ready), flush=True)
    while line := await lines.readline():
        print(json.dumps(await answer(line.decode().strip())), flush=True)


def to_the_end(serving: Coroutine[None, None, None]) -> NoReturn:
    """In a child: run to the end and be gone: with gRPC and torch the interpreter itself takes seconds to end."""
    asyncio.run(serving)
    sys.stdout.flush()
    os._exit(0)
