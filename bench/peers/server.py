"""A peer that is a server of its own: start it on a free port, ask it over HTTP, end it by its process id."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from .face import Peer, PeerError

__all__ = ["ROOT", "ServerPeer"]

ROOT = Path(__file__).resolve().parents[2]
_LOGS = ROOT / "build" / "bench" / "logs"
_ENDS_S = 20.0  # a server has so long to end by itself


class ServerPeer(Peer):
    """What the servers have in common; a subclass says how to start one and what to ask."""

    start_s: float = 600.0  # until it answers; imports and compiling included, on a machine that is busy

    @abstractmethod
    def command(self, port: int) -> tuple[list[str], Mapping[str, str]]:
        """Return the command line and what it needs in its environment; raise `PeerMissingError`."""

    @abstractmethod
    async def ask(self, client: httpx.AsyncClient, prompt: Sequence[int], new_tokens: int) -> list[int]:
        """Return the ids of one request."""

    def __enter__(self) -> Self:
        """Start it; sets `url`, `pid` (its process id) and `started_s` (how long it took to answer)."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port: int = free.getsockname()[1]
        command, environment = self.command(port)
        _LOGS.mkdir(parents=True, exist_ok=True)
        self._log = _LOGS / f"{type(self).__name__}-{port}.log"
        began = time.monotonic()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, env={**os.environ, **environment}, stdout=log, stderr=log, start_new_session=True
            )
        self.pid = self._process.pid
        self.url = f"http://127.0.0.1:{port}"
        self._runner = asyncio.Runner()
        self._client = httpx.AsyncClient(base_url=self.url, timeout=self.start_s, trust_env=False)
        try:
            self._runner.run(self._until_healthy(began + self.start_s))
        except BaseException:
            self._end()
            raise
        self.started_s = time.monotonic() - began
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End it, its children with it."""
        self._end()

    def complete(self, prompts: Sequence[Sequence[int]], new_tokens: int, *, together: bool) -> list[list[int]]:
        """Return the ids that the server gave."""
        return self._runner.run(self._complete(prompts, new_tokens, together=together))

    async def post(self, client: httpx.AsyncClient, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer's JSON object; raise `PeerError` with the server's own words."""
        answer = await client.post(path, json=body)
        if answer.status_code != 200:
            raise PeerError(f"{self.name} answered {answer.status_code}: {answer.text[:300]}")
        return answer.json()

    async def _complete(self, prompts: Sequence[Sequence[int]], new_tokens: int, *, together: bool) -> list[list[int]]:
        if together:
            return list(await asyncio.gather(*(self.ask(self._client, prompt, new_tokens) for prompt in prompts)))
        return [await self.ask(self._client, prompt, new_tokens) for prompt in prompts]

    async def _until_healthy(self, deadline: float) -> None:
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                tail = self._log.read_text(errors="replace")[-1_500:]
                raise PeerError(f"{self.name} ended with {self._process.returncode}; {self._log} ends with:\n{tail}")
            try:
                if (await self._client.get("/health", timeout=2)).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.5)
        raise PeerError(f"{self.name} did not answer within {self.start_s:.0f} s; read {self._log}")

    def _end(self) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()
        self._process.terminate()
        try:
            self._process.wait(_ENDS_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_ENDS_S)
        # The session was made for it: nobody else is in it. Its children have a moment to clean up.
        with contextlib.suppress(ProcessLookupError):
            for _ in range(50):
                os.killpg(self.pid, 0)
                time.sleep(0.2)
            os.killpg(self.pid, signal.SIGKILL)
