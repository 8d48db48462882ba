"""A server killed (SIGKILL) in the middle of an answer, on plait and on patched Petals; a spare holds its blocks.

First the server of the first half of the blocks, then that of the second; each time after 24 of 96 tokens, and each
time every process of the server at once. Two spares, one for each half, run from the start. Petals' client is told to
give a silent server up after 5 seconds instead of its own 180.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from bench.peers.petals_swarm import NAME, PetalsAnswer, PetalsClient, PetalsSwarm, opened_petals
from bench.swarm.figure import Found, Setting
from bench.swarm.petals_plait import PlaitAnswer, PlaitClient, opened_plait, tokenizer_of

from plait.errors import PlaitError

__all__ = ["Outcome", "composed_kills", "kills", "longest_gap"]

_TOKENS, _AFTER = 96, 24
_LIMIT_S: Final = 60.0
_STEP_S: Final = 5.0  # after which Petals' client gives a server up; by itself it waits 180 s
_HALVES: Final = ("first half", "second half")


def longest_gap(at: Sequence[float]) -> float:
    """Return the longest time between two moments, in seconds; 0 where there are less than two."""
    return max((later - sooner for sooner, later in pairwise(at)), default=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one side did with one kill: seconds without a token, tokens of those asked for, and whether they are right.

    `same`: all that came is what came undisturbed, as far as it goes.
    """

    side: str
    half: str
    pause_s: float
    tokens: int
    completed: bool
    same: bool
    said: str = ""

    def told(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        told = {"killed": self.half, "pause_s": round(self.pause_s, 3), "tokens": self.tokens}
        return told | {"completed": self.completed, "same_tokens": self.same, "said": self.said}


def composed_kills(outcomes: Sequence[Outcome]) -> Found:
    """Return the figure: the longest pause of each side, and how many answers came whole and unchanged."""
    ratios: dict[str, float] = {}
    details: dict[str, Any] = {
        "peer": NAME,
        "killed_after_tokens": _AFTER,
        "limit_s": _LIMIT_S,
        "petals_timeout_s": _STEP_S,
    }
    for side in dict.fromkeys(each.side for each in outcomes):
        its = [each for each in outcomes if each.side == side]
        details[side] = [each.told() for each in its]
        ratios[f"petals_kills_{side}_pause_s"] = max(each.pause_s for each in its)
        ratios[f"petals_kills_{side}_same_tokens"] = sum(each.completed and each.same for each in its) / len(its)
    return Found(ratios=ratios, details=details)


async def kills(setting: Setting, weights: Path, blocks: int, text: str) -> Found:
    """Kill a server of each half on both sides, one side after the other: only pauses are compared."""
    prompt = tokenizer_of(weights, setting.folder / "tokenizer").render([{"role": "user", "content": text}])
    outcomes: list[Outcome] = []
    async with opened_plait(weights, blocks, setting.folder / "plait", spares=True, say=lambda _: None) as ours:
        whole = await ours.ask(text, _TOKENS)
        for place, half in enumerate(_HALVES):
            outcomes.append(await _kill_ours(ours, text, place, half, whole))
            setting.say(f"  {outcomes[-1]}")
    async with opened_petals(weights, setting.folder / "petals", threads=setting.threads) as swarm:
        for name in ("a", "b"):
            await swarm.serve(f"first-{name}", 0, blocks // 2)
            await swarm.serve(f"second-{name}", blocks // 2, blocks)
        client = await swarm.client("client-0", timeout_s=_STEP_S)
        theirs = _Theirs(swarm=swarm, client=client, prompt=prompt, whole=await client.ask(prompt, _TOKENS))
        for place, half in enumerate(_HALVES):
            outcomes.append(await theirs.kill(place, half))
            setting.say(f"  {outcomes[-1]}")
            if not outcomes[-1].completed:  # it may still be at it
                theirs.client = await swarm.client(f"client-{place + 1}", timeout_s=_STEP_S)
    return composed_kills(outcomes)


async def _kill_ours(ours: PlaitClient, text: str, place: int, half: str, whole: PlaitAnswer) -> Outcome:
    """Kill the stage that is the `place`th of the route; a failure is an outcome too."""
    struck = _Once()

    def strike(tokens: int, route: Sequence[str]) -> None:
        if struck.now(tokens):
            os.kill(ours.network.stage_named(route[place]).pid, signal.SIGKILL)

    began = time.perf_counter()
    try:
        got = await ours.ask(text, _TOKENS, limit_s=_LIMIT_S, on_token=strike)
    except (PlaitError, TimeoutError) as error:
        return Outcome(
            side="plait",
            half=half,
            pause_s=time.perf_counter() - began,
            tokens=struck.tokens,
            completed=False,
            same=False,
            said=f"{type(error).__name__}: {error}"[:300],
        )
    return Outcome(
        side="plait",
        half=half,
        pause_s=longest_gap([seconds for seconds, tokens in got.at if tokens >= _AFTER]),
        tokens=got.tokens,
        completed=got.tokens == _TOKENS,
        same=(got.text, got.tokens) == (whole.text, whole.tokens),
        said=f"attempt {got.attempts}, {got.finish}",
    )


@dataclass(slots=True, kw_only=True)
class _Theirs:
    """Petals' side: its servers, who asks them what, and what came undisturbed."""

    swarm: PetalsSwarm
    client: PetalsClient
    prompt: Sequence[int]
    whole: PetalsAnswer

    async def kill(self, place: int, half: str) -> Outcome:
        """Kill the server that is the `place`th of the route; what came until the limit counts."""
        struck = _Once()

        def strike(tokens: int) -> None:
            if struck.now(tokens):
                self.swarm.server_of(self.client.route()[place]).kill()

        got = await self.client.ask(self.prompt, _TOKENS, limit_s=_LIMIT_S, on_token=strike)
        completed = len(got.ids) == _TOKENS
        return Outcome(
            side="petals",
            half=half,
            pause_s=longest_gap(got.at[_AFTER - 1 :]) if completed else _LIMIT_S,
            tokens=len(got.ids),
            completed=completed,
            same=got.ids == self.whole.ids[: len(got.ids)],
            said="; ".join(filter(None, [got.error, self.client.complaint()])),
        )


@dataclass(slots=True)
class _Once:
    """Says once that enough tokens have come."""

    tokens: int = 0
    done: bool = False

    def now(self, tokens: int) -> bool:
        self.tokens = tokens
        if self.done or tokens < _AFTER:
            return False
        self.done = True
        return True
