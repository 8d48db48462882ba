"""A local network of plait with two stages over a small Llama, each with a spare where they are wanted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from plait import AsyncPlait
from plait.chain.reader import ChainReader
from plait.chain.writer import ChainWriter
from plait.protocol.ids import to_hex
from plait.protocol.tokens import ChatTokenizer
from plait.protocol.typed import Key
from plait_node.home import Home
from plait_node.localnet import Child, Network
from plait_node.models import prepare, publish
from plait_node.selector.combinations import Combination
from plait_node.selector.pin import PIN, save_pin

__all__ = ["PlaitAnswer", "PlaitClient", "TwoStages", "opened_plait", "tokenizer_of"]

_SPARES: Final = frozenset({"stage-cedar", "stage-spare"})
_LIMIT_S: Final = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaitAnswer:
    """The text that came; `at` has the seconds since the call, and how many tokens were there by then."""

    text: str
    tokens: int
    at: tuple[tuple[float, int], ...]
    finish: str
    method: str
    attempts: int
    seconds: float  # to the end, last checks and last payment included


def tokenizer_of(weights: Path, folder: Path) -> ChatTokenizer:
    """Return the tokenizer of a folder of weights, as payers have it; `folder` is scratch."""
    stored = prepare(weights, folder)
    return ChatTokenizer.of(
        stored.manifest, tokenizer_json=stored.tokenizer_json, chat_template=stored.chat_template.encode()
    )


@dataclass(kw_only=True)
class TwoStages(Network):
    """A local network that serves a folder of weights; jobs run plainly: nothing is guessed, kept or cut up."""

    weights: Path
    blocks: int
    compiled: bool = True
    spares: bool = False

    def __post_init__(self) -> None:
        """Give the four stages a half each."""
        super().__post_init__()
        half = self.blocks // 2
        halves = {"stage-ash": (0, half), "stage-birch": (half, self.blocks)}
        halves |= {"stage-cedar": (0, half), "stage-spare": (half, self.blocks)}
        self._processes = tuple(
            replace(each, first=halves[each.name][0], last=halves[each.name][1]) if each.name in halves else each
            for each in self._processes
        )

    async def _fund_and_publish(self, reader: ChainReader, deployer: Key) -> str:
        await super()._fund_and_publish(reader, deployer)
        published = await publish(self.weights, self.folder / "models", ChainWriter(reader, deployer))
        return to_hex(published.model_id)

    def start_node(self, name: str) -> Child | None:
        """Start a node, unless it is a spare and none are wanted."""
        if name in _SPARES and not self.spares:
            return None
        home = Home(self.folder / "nodes" / name)
        if name == "worker":
            save_pin(home.selector_folder / PIN, Combination())
        file = home.path / "node.toml"
        text = file.read_text(encoding="utf-8")
        if name.startswith("stage-") and not self.compiled and "compiled" not in text:
            file.write_text(f"{text}compiled = false\n", encoding="utf-8")
        return super().start_node(name)

    async def until_ready(self, name: str) -> None:
        """Wait until a node serves, unless it is a spare and none are wanted."""
        if name in self.running:
            await super().until_ready(name)

    @property
    def rpc(self) -> str:
        """Return the chain's URL."""
        return self._anvil.url

    @property
    def deployment(self) -> Path:
        """Return the file of the contracts."""
        return self._shared.deployment

    def stage_named(self, owner: str) -> Child:
        """Return the process of the stage whose operator is `owner`, 0x...; raise `StopIteration`."""
        name = next(name for name, each in self.owners.items() if to_hex(each.key.address) == owner)
        return self.running[f"stage-{name}"]


@dataclass(slots=True, kw_only=True)
class PlaitClient:
    """A payer of one network."""

    network: TwoStages
    sdk: AsyncPlait
    model: str

    async def ask(
        self,
        text: str,
        count: int,
        *,
        limit_s: float = _LIMIT_S,
        on_token: Callable[[int, Sequence[str]], None] = lambda _, __: None,
    ) -> PlaitAnswer:
        """Ask greedily for `count` tokens; `on_token` is told how many there are, and the owners of the route.

        Raises:
            PlaitError: there is no answer.
            TimeoutError: it took longer than `limit_s`.
        """
        began, pieces, at = time.perf_counter(), list[str](), list[tuple[float, int]]()
        async with asyncio.timeout(limit_s):
            stream = await self.sdk.chat.completions.create(
                model=self.model,
                messages=[{"role": "user", "content": text}],
                max_tokens=count,
                temperature=0,
                stream=True,
            )
            async for chunk in stream:
                if piece := chunk.choices[0].delta.content:
                    pieces.append(piece)
                    at.append((time.perf_counter() - began, stream.usage.completion_tokens))
                    route = stream.job.route if stream.job is not None else ()
                    on_token(at[-1][1], [stage.node for stage in route])
        done = stream.completion
        return PlaitAnswer(
            text="".join(pieces),
            tokens=done.usage.completion_tokens,
            at=tuple(at),
            finish=done.choices[0].finish_reason,
            method=done.job.method,
            attempts=done.job.attempt,
            seconds=time.perf_counter() - began,
        )


@asynccontextmanager
async def opened_plait(
    weights: Path,
    blocks: int,
    folder: Path,
    *,
    compiled: bool = True,
    spares: bool = False,
    say: Callable[[str], None] = print,
) -> AsyncGenerator[PlaitClient]:
    """Run a network, and a payer of it, for as long as the block lasts; raise `LocalnetError` or `PlaitError`."""
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    network = TwoStages(folder=folder, weights=weights, blocks=blocks, compiled=compiled, spares=spares, say=say)
    try:
        await network.start()
        async with AsyncPlait(
            rpc=network.rpc, deployment=network.deployment, key=network.payer, home=folder / "payer"
        ) as sdk:
            yield PlaitClient(network=network, sdk=sdk, model=weights.name)
    finally:
        await network.stop()
