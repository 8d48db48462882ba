"""A stage is killed inside an answer whose prompt came out of the stages' caches: how soon the answer goes on.

Two processes hold each third of the model. Where the stage before the lost one keeps the rows of its cached windows,
the spare computes its own blocks from them; where it has no memory for them, all blocks compute the prompt again.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from dataclasses import dataclass
from typing import Final

from bench.swarm.engines import SMOLLM2
from bench.swarm.failover import listening, struck
from bench.swarm.figure import Bar, Found, Part, Setting
from bench.swarm.network import Swarm, swarm
from bench.swarm.parties import owner
from bench.swarm.texts import made_up

__all__ = ["PART"]

_THIRDS: Final = (0, 10, 20, 30)
_PROMPT, _TOKENS = 1_000, 32
_DEADLINE_S: Final = 120.0
_LOOK_S: Final = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class _Turn:
    """One disturbed answer: seconds until the failure was seen and in all, and whether only the lost was computed."""

    detect_s: float
    cost_s: float
    same: bool
    mended: bool

    @property
    def resume_s(self) -> float:
        return self.cost_s - self.detect_s


async def _turn(over: Swarm, dice: random.Random, prompt: list[int]) -> _Turn | None:
    """Kill a stage behind the first in the decode of one answer; None where the answer had ended before."""
    worker = over.worker
    await worker.disturbed(prompt, _TOKENS, reuse=True)  # now the stages of a route hold the prompt's windows
    await _freed(over)
    began = time.perf_counter()
    undisturbed = await worker.disturbed(prompt, _TOKENS, reuse=True)
    usual_s = time.perf_counter() - began
    await _freed(over)
    used = [stage.node for stage in undisturbed.job.message.route[1:]]
    at = dice.choice([place for place, spec in enumerate(over.specs) if owner(spec.number) in used])
    with listening() as seen:
        began = time.perf_counter()
        answering = asyncio.create_task(worker.disturbed(prompt, _TOKENS, reuse=True))
        await asyncio.sleep(dice.uniform(0.3, 0.9) * usual_s)
        killed = time.perf_counter()
        async with struck(over, at, "killed"), asyncio.timeout(_DEADLINE_S):
            disturbed = await answering
            cost_s = time.perf_counter() - began - usual_s
    await _freed(over)
    if not seen.at or not undisturbed.reused_windows:
        return None
    return _Turn(
        detect_s=seen.at[0][0] - killed,
        cost_s=cost_s,
        same=disturbed.ids == undisturbed.ids,
        mended=disturbed.job.message.row > 0,
    )


async def _freed(over: Swarm) -> None:
    """Wait until no job holds rows: there is memory for those of one alone."""
    async with asyncio.timeout(_DEADLINE_S):
        while any(load["rows_bytes"] for load in await over.loads()):  # noqa: ASYNC110 - stages are other processes
            await asyncio.sleep(_LOOK_S)


async def _turns(setting: Setting, name: str, rows_bytes: int | None) -> list[_Turn]:
    dice = random.Random(6)  # noqa: S311 - which stage is struck is no secret
    turns: list[_Turn] = []
    folder = setting.folder / name
    async with swarm(folder, SMOLLM2, _THIRDS, threads=setting.threads, holders=2, rows_bytes=rows_bytes) as over:
        prompt = made_up(_PROMPT, seed="cached failover", vocabulary=over.manifest.vocabulary)
        while len(turns) < setting.repeats:
            if (turn := await _turn(over, dice, prompt)) is not None:
                turns.append(turn)
                setting.say(f"  rows {name}: on again after {turn.resume_s:.2f} s, seen after {turn.detect_s:.2f} s")
    return turns


async def measured(setting: Setting) -> Found:
    """Kill stages with the rows of cached windows kept, and with memory for the rows of one job alone."""
    width = 4 * 576  # bytes of a row of SmolLM2-135M
    kept = await _turns(setting, "kept", None)
    gone = await _turns(setting, "gone", (_PROMPT + _TOKENS) * width)
    resume = {name: [turn.resume_s for turn in turns] for name, turns in (("kept", kept), ("gone", gone))}
    median = {name: statistics.median(values) for name, values in resume.items()}
    both = [*kept, *gone]
    return Found(
        ratios={
            "cached_failover_gain": median["gone"] / median["kept"],
            "cached_failover_mended": sum(turn.mended for turn in kept) / len(kept),
            "cached_failover_same_tokens": sum(turn.same for turn in both) / len(both),
        },
        details={
            name: {"median_s": round(median[name], 4), "values_s": [round(value, 4) for value in values]}
            for name, values in resume.items()
        }
        | {"mended": {"kept": sum(turn.mended for turn in kept), "gone": sum(turn.mended for turn in gone)}},
    )


PART: Final = Part(
    name="failover-cached",
    bars={"cached_failover_mended": Bar(bound=1.0), "cached_failover_same_tokens": Bar(bound=1.0)},
    measure=measured,
)
