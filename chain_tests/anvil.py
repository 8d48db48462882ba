"""A local chain for tests: anvil on a port of its own, its clock and miner in the test's hand."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx

from plait.chain import Deployment
from plait.protocol.ids import Address, to_hex
from plait.protocol.typed import Key

START_DEADLINE_S = 60.0
STOP_DEADLINE_S = 20.0
COIN_WEI = 10**21

# anvil's first well-known accounts; they hold coins on every local chain and nowhere else.
_KNOWN_KEYS = (
    "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
    "59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
    "5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a",
    "7c852118294e51e653712a81e05800f419141751be58f605c371e15141b007a6",
    "47e179ec197488593b187f80a00eb0da91f1b9d0b13f8733639f19c30a34926a",
)


def deployer_key() -> Key:
    """Return the key that deploys the contracts."""
    return Key.from_hex(_KNOWN_KEYS[0])


def known_keys() -> tuple[Key, ...]:
    """Return four other keys that hold coins."""
    return tuple(Key.from_hex(each) for each in _KNOWN_KEYS[1:])


class Anvil:
    """A running anvil. `with Anvil(...)` ends it."""

    def __init__(self, *arguments: str, chain_id: int = 31_337) -> None:
        where = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        program = shutil.which("anvil", path=where)
        if program is None:
            raise FileNotFoundError("anvil is not installed; run `make setup`")
        command = [program, "--port", "0", "--chain-id", str(chain_id), *arguments]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self._client = httpx.Client(timeout=60.0)
        self.url = self._listening()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the process and close the connection to it."""
        self._client.close()
        self._process.terminate()
        try:
            self._process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            with suppress(ValueError):  # the drain may be reading it
                self._process.stdout.close()

    def rpc(self, method: str, *params: object) -> Any:  # noqa: ANN401 JSON
        """Call a method and return its result."""
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
        answer = self._client.post(self.url, json=body).json()
        if "error" in answer:
            raise AssertionError(f"{method}: {answer['error']}")
        return answer["result"]

    def snapshot(self) -> str:
        """Remember the chain as it is; `revert` goes back there once."""
        return self.rpc("evm_snapshot")

    def revert(self, snapshot: str) -> None:
        """Go back to a snapshot."""
        assert self.rpc("evm_revert", snapshot)

    def increase_time(self, seconds: int) -> None:
        """Move the chain's clock forward and mine a block there."""
        self.rpc("evm_increaseTime", seconds)
        self.mine()

    def mine(self, blocks: int = 1) -> None:
        """Mine blocks."""
        self.rpc("anvil_mine", hex(blocks))

    def automine(self, *, on: bool) -> None:
        """Mine a block for each transaction, or leave them waiting."""
        self.rpc("evm_setAutomine", on)

    def fund(self, account: Address, wei: int = COIN_WEI) -> None:
        """Give an account coins for gas."""
        self.rpc("anvil_setBalance", to_hex(account), hex(wei))

    def sent(self, account: Address) -> int:
        """Return how many transactions of an account are in blocks or wait for one."""
        return int(self.rpc("eth_getTransactionCount", to_hex(account), "pending"), 16)

    def timestamp(self) -> int:
        """Return the latest block's time in Unix seconds."""
        return int(self.rpc("eth_getBlockByNumber", "latest", False)["timestamp"], 16)

    def _listening(self) -> str:
        found = threading.Event()
        where: list[str] = []
        threading.Thread(target=self._drain, args=(where, found), daemon=True).start()
        if not found.wait(START_DEADLINE_S) or not where:
            self.stop()
            raise TimeoutError(f"anvil did not listen within {START_DEADLINE_S:g} s")
        return f"http://{where[0]}"

    def _drain(self, where: list[str], found: threading.Event) -> None:
        assert self._process.stdout
        with suppress(ValueError):  # closed by `stop`
            for line in self._process.stdout:  # to the end: a full pipe would stop anvil
                if line.startswith("Listening on ") and not where:
                    where.append(line.removeprefix("Listening on ").strip())
                    found.set()
        found.set()


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalChain:
    """A chain with the contracts on it; each test finds it as the deployment left it."""

    anvil: Anvil
    deployment: Deployment
    deployer: Key
    keys: tuple[Key, ...]

    @property
    def url(self) -> str:
        return self.anvil.url

    def new_key(self) -> Key:
        """Return a fresh key with coins for gas."""
        key = Key.generate()
        self.anvil.fund(key.address)
        return key


@asynccontextmanager
async def switch(target: str) -> AsyncIterator[tuple[str, Callable[[bool], None]]]:
    """Yield the URL of a relay to an endpoint, and a function that turns it on and off."""
    host, port = target.removeprefix("http://").split(":")
    up = True
    writers: set[asyncio.StreamWriter] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not up:
            writer.transport.abort()
            return
        there_reader, there_writer = await asyncio.open_connection(host, int(port))
        writers.update((writer, there_writer))
        await asyncio.gather(pump(reader, there_writer), pump(there_reader, writer))
        writers.difference_update((writer, there_writer))

    def turn(on: bool) -> None:
        nonlocal up
        up = on
        if not on:
            for each in writers:
                each.transport.abort()

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", turn
    finally:
        turn(False)
        server.close()
        await server.wait_closed()
