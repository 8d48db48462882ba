"""Stages that are lost inside an answer: how soon that is seen, and how soon the answer goes on.

Two processes hold each third of the model, each on a host of its own. In every turn one that the answer uses is killed
(SIGKILL), frozen (SIGSTOP), cut off, or slowed to a twentieth of its time, at a moment of prefill or decode that dice
choose; the answer must come out as the undisturbed one did. Slowness is told apart from the rest: it shows by and by.
"""

from __future__ import annotations

import asyncio
import logging
import random
import statistics
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from bench.swarm.child import Child
from bench.swarm.engines import SMOLLM2
from bench.swarm.figure import Bar, Found, Part, Setting
from bench.swarm.hosts import Weather, opened_hosts
from bench.swarm.network import Swarm, host_name, swarm
from bench.swarm.parties import owner
from bench.swarm.texts import made_up

from plait.protocol.ids import to_hex
from plait.protocol.manifest import FP32_STRICT, Profile

__all__ = ["PART", "kills", "listening", "struck"]

_THIRDS: Final = (0, 10, 20, 30)
_PROMPT, _TOKENS = 160, 96
_REPEATS_A_TURN: Final = 10  # so many turns for one of `--repeats`: 50 by default
_DEADLINE_S: Final = 60.0
_WAYS: Final = ("killed", "frozen", "cut", "slowed")
_SLICE_S: Final = 0.002


@dataclass(slots=True)
class _Seen:
    """When the worker said that a stage failed, and which."""

    at: list[tuple[float, str]] = field(default_factory=list[tuple[float, str]])


class _Listener(logging.Handler):
    def __init__(self, seen: _Seen) -> None:
        super().__init__()
        self._seen = seen

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg.startswith("stage failed") and isinstance(record.args, tuple):
            self._seen.at.append((time.perf_counter(), str(record.args[0])))


@contextmanager
def listening() -> Generator[_Seen]:
    """Hear what the worker says of stages that fail."""
    seen, log = _Seen(), logging.getLogger("plait_node.worker.serving")
    listener = _Listener(seen)
    log.addHandler(listener)
    try:
        yield seen
    finally:
        log.removeHandler(listener)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Turn:
    """One disturbed answer, in seconds: until the failure was seen, and what it cost in all."""

    how: str
    detect_s: float
    cost_s: float
    same: bool
    right: bool  # the right stage was blamed


async def _turn(over: Swarm, how: str, dice: random.Random, prompt: list[int]) -> _Turn | None:
    """Disturb one answer; None where the stage was not used, or the answer had ended before."""
    began = time.perf_counter()
    undisturbed = await over.worker.disturbed(prompt, _TOKENS)
    usual_s = time.perf_counter() - began
    used = [stage.node for stage in undisturbed.job.message.route]
    at = dice.choice([place for place, spec in enumerate(over.specs) if owner(spec.number) in used])
    with listening() as seen:
        began = time.perf_counter()
        answering = asyncio.create_task(over.worker.disturbed(prompt, _TOKENS))
        await asyncio.sleep(dice.uniform(0.02, 0.9) * usual_s)
        begun = time.perf_counter()
        async with struck(over, at, how), asyncio.timeout(_DEADLINE_S):
            disturbed = await answering
            cost_s = time.perf_counter() - began - usual_s
    if not seen.at:
        return None
    when, who = seen.at[0]
    right = to_hex(owner(over.specs[at].number)) == who
    return _Turn(how=how, detect_s=when - begun, cost_s=cost_s, same=disturbed.ids == undisturbed.ids, right=right)


@asynccontextmanager
async def struck(over: Swarm, at: int, how: str) -> AsyncGenerator[None]:
    """Strike the stage at a place for as long as the block lasts; after it the stage serves as before."""
    stage, slowing = over.stages[at], None
    match how:
        case "killed":
            stage.kill()
        case "frozen":
            stage.freeze()
        case "cut":
            await over.cut(at)
        case _:
            slowing = asyncio.create_task(_slow(stage))
    try:
        yield
    finally:
        if slowing is not None:
            slowing.cancel()
            await asyncio.wait({slowing})
        if how == "killed":
            await stage.process.wait()
            await over.start_again(at)
        else:
            stage.thaw()
        await over.heal(at)
        over.worker.forgive()
        await over.worker.settled()


async def _slow(stage: Child) -> None:
    """Let a process run for a twentieth of the time."""
    while True:
        stage.freeze()
        await asyncio.sleep(19 * _SLICE_S)
        stage.thaw()
        await asyncio.sleep(_SLICE_S)


async def kills(setting: Setting, profile: Profile = FP32_STRICT) -> Found:
    """Strike stages in turn, one way after the other."""
    dice = random.Random(6)  # noqa: S311 - which stage is struck is no secret
    wanted = _REPEATS_A_TURN * setting.repeats
    turns: list[_Turn] = []
    names = [host_name(number) for number in range(1, 2 * len(_THIRDS) - 1)]
    async with (
        opened_hosts(names, Weather()) as hosts,
        swarm(
            setting.folder, SMOLLM2, _THIRDS, threads=setting.threads, holders=2, profile=profile, hosts=hosts
        ) as over,
    ):
        prompt = made_up(_PROMPT, seed="failover", vocabulary=over.manifest.vocabulary)
        await over.worker.answer(prompt, _TOKENS)
        lost_blocks_s = (await over.worker.answer(prompt, 1)).first_s / (len(_THIRDS) - 1)
        while len(turns) < wanted:
            how = _WAYS[len(turns) % len(_WAYS)]
            if (turn := await _turn(over, how, dice, prompt)) is not None:
                turns.append(turn)
                setting.say(f"  {how}: seen after {turn.detect_s:.2f} s, {turn.cost_s:.2f} s in all")
        how = hosts.how
    return _found(turns, lost_blocks_s, how)


def _found(turns: list[_Turn], lost_blocks_s: float, hosts: str) -> Found:
    lost = [turn for turn in turns if turn.how != "slowed"]
    resume = [turn.cost_s - turn.detect_s for turn in lost]
    details: dict[str, Any] = {
        "hosts": hosts,
        "turns": len(turns),
        "same_tokens": sum(turn.same for turn in turns),
        "right_stage_blamed": sum(turn.right for turn in turns),
        "prefill_of_lost_blocks_s": round(lost_blocks_s, 4),
    }
    for how in _WAYS:
        its = [turn for turn in turns if turn.how == how]
        details[how] = {
            "detect_s": {"median": _short([turn.detect_s for turn in its]), "most": _most(its, "detect_s")},
            "cost_s": {"median": _short([turn.cost_s for turn in its]), "most": _most(its, "cost_s")},
        }
    ratios = {
        "failover_detect_s": max(turn.detect_s for turn in lost),
        "failover_resume_s": statistics.median(resume),
        "failover_resume_beyond_prefill_s": max(resume) - lost_blocks_s,
        "failover_same_tokens": sum(turn.same for turn in turns) / len(turns),
    }
    return Found(ratios=ratios, details=details)


def _short(values: list[float]) -> float:
    return round(statistics.median(values), 4) if values else 0.0


def _most(turns: list[_Turn], name: str) -> float:
    return round(max((getattr(turn, name) for turn in turns), default=0.0), 4)


PART: Final = Part(
    name="failover",
    bars={
        "failover_detect_s": Bar(bound=2.0, at_most=True),
        "failover_resume_beyond_prefill_s": Bar(bound=1.0, at_most=True),
        "failover_same_tokens": Bar(bound=1.0),
    },
    measure=kills,
)
