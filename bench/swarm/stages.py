"""Stages against one process: one stream over two stages, and eight jobs at once over four, on the same cores.

The model, its fp32 weights, the threads of each process, the worker and the prompts are the same on both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

from bench.swarm.engines import SMOLLM2
from bench.swarm.figure import Bar, Found, Part, Setting, interleaved
from bench.swarm.network import Swarm, swarm
from bench.swarm.texts import made_up

__all__ = ["FOUR", "TWO"]

_ALL: Final = (0, 30)
_HALVES: Final = (0, 15, 30)
_QUARTERS: Final = (0, 10, 19, 28, 30)  # the head counts as much as eight blocks
_STREAM_TOKENS: Final = 64
_JOBS: Final = 8
_JOB_TOKENS: Final = 48


def _prompt(over: Swarm, name: str) -> list[int]:
    return made_up(8, seed=name, vocabulary=over.manifest.vocabulary)


async def _both(stack: AsyncExitStack, setting: Setting, cuts: Sequence[int]) -> tuple[Swarm, Swarm]:
    one = await stack.enter_async_context(swarm(setting.folder / "one", SMOLLM2, _ALL, threads=setting.threads))
    more = await stack.enter_async_context(swarm(setting.folder / "more", SMOLLM2, cuts, threads=setting.threads))
    return one, more


async def two_stages(setting: Setting) -> Found:
    """Measure the tokens a second of a single stream, after the first token."""
    answers: dict[tuple[str, int], tuple[int, ...]] = {}
    used: dict[str, list[dict[str, Any]]] = {}

    async def rate(over: Swarm, side: str, repeat: int) -> float:
        before = await over.loads()
        took = await over.worker.answer(_prompt(over, f"stream {repeat}"), _STREAM_TOKENS)
        used[side] = [usage.told() for usage in await over.usage_since(before)]
        await over.worker.settled()
        answers[side, repeat] = took.ids
        return 1 / took.step_s

    async with AsyncExitStack() as stack:
        one, two = await _both(stack, setting, _HALVES)
        found = await interleaved(
            {"one": lambda repeat: rate(one, "one", repeat), "two": lambda repeat: rate(two, "two", repeat)},
            repeats=setting.repeats,
        )
    details: dict[str, Any] = {name: values.told() for name, values in found.items()}
    same = all(answers["one", repeat] == answers["two", repeat] for repeat in range(setting.repeats + 1))
    details |= {"unit": "tokens/s", "same_tokens": same, "utilisation": used}
    return Found(ratios={"two_stage_vs_one": found["two"].median / found["one"].median}, details=details)


async def four_stages(setting: Setting) -> Found:
    """Measure the tokens a second of eight jobs at once, their short prompts' time included."""
    used: dict[str, list[dict[str, Any]]] = {}

    async def rate(over: Swarm, side: str, repeat: int) -> float:
        before = await over.loads()
        prompts = [_prompt(over, f"job {job} {repeat}") for job in range(_JOBS)]
        tokens_s = await over.together(prompts, _JOB_TOKENS)
        used[side] = [usage.told() for usage in await over.usage_since(before)]
        return tokens_s

    async with AsyncExitStack() as stack:
        one, four = await _both(stack, setting, _QUARTERS)
        found = await interleaved(
            {"one": lambda repeat: rate(one, "one", repeat), "four": lambda repeat: rate(four, "four", repeat)},
            repeats=setting.repeats,
        )
    details: dict[str, Any] = {name: values.told() for name, values in found.items()}
    details |= {"unit": "tokens/s", "jobs": _JOBS, "utilisation": used}
    return Found(ratios={"four_stages_8_jobs_vs_one": found["four"].median / found["one"].median}, details=details)


TWO: Final = Part(name="two-stages", bars={"two_stage_vs_one": Bar(bound=0.9)}, measure=two_stages)
FOUR: Final = Part(name="four-stages", bars={"four_stages_8_jobs_vs_one": Bar(bound=0.8)}, measure=four_stages)
