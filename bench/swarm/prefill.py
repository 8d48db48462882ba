"""A long prompt as a pipeline of frames against stage after stage: 1,500 tokens, three stages.

As a pipeline, stage k computes frame i while stage k + 1 computes frame i - 1: the stages are as shipped, the worker
sends frames. Stage after stage, the same prompt comes as one frame to stages whose passes may take as long as they
like, so that each gives its rows on when it has all of them. `default` is what shipped stages make of one frame.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any, Final

from bench.swarm.engines import SMOLLM2
from bench.swarm.figure import Bar, Found, Part, Setting, interleaved
from bench.swarm.network import Swarm, swarm
from bench.swarm.texts import made_up

__all__ = ["PART"]

_CUTS: Final = (0, 10, 20, 30)
_ROWS: Final = 1_500
_FRAME: Final = 128  # rows, what the worker's methods offer
_ENDLESS_S: Final = 600.0  # a pass of the whole prompt
_LEARNING: Final = 8  # prompts until a stage with endless passes takes a whole one: its pace doubles with each pass


async def measure(setting: Setting) -> Found:
    """Measure the time to the first token each way."""
    used: dict[str, list[dict[str, Any]]] = {}

    async def first_s(over: Swarm, side: str, chunk: int, repeat: int) -> float:
        prompt = made_up(_ROWS, seed=f"prefill {repeat}", vocabulary=over.manifest.vocabulary)
        before = await over.loads()
        took = await over.worker.answer(prompt, 1, chunk=chunk)
        used[side] = [usage.told() for usage in await over.usage_since(before)]
        await over.worker.settled()
        return took.first_s

    async with AsyncExitStack() as stack:
        shipped, patient = [
            await stack.enter_async_context(
                swarm(setting.folder / name, SMOLLM2, _CUTS, threads=setting.threads, pass_s=pass_s)
            )
            for name, pass_s in (("shipped", None), ("patient", _ENDLESS_S))
        ]
        await _learn(patient)
        found = await interleaved(
            {
                "pipelined": lambda repeat: first_s(shipped, "pipelined", _FRAME, repeat),
                "stage after stage": lambda repeat: first_s(patient, "stage after stage", 0, repeat),
                "default": lambda repeat: first_s(shipped, "default", 0, repeat),
            },
            repeats=setting.repeats,
        )
    details: dict[str, Any] = {name: values.told() for name, values in found.items()}
    details |= {"unit": "s", "rows": _ROWS, "frame": _FRAME, "utilisation": used}
    after = found["stage after stage"].median
    ratios = {
        "pipelined_prefill": after / found["pipelined"].median,
        "default_prefill": after / found["default"].median,
    }
    return Found(ratios=ratios, details=details)


async def _learn(over: Swarm) -> None:
    """Let stages find out that a whole prompt fits into a pass."""
    for turn in range(_LEARNING):
        prompt = made_up(_ROWS, seed=f"learn {turn}", vocabulary=over.manifest.vocabulary)
        before = await over.loads()
        await over.worker.answer(prompt, 1)
        if all(usage.passes == 1 for usage in await over.usage_since(before)):
            return


PART: Final = Part(name="prefill", bars={"pipelined_prefill": Bar(bound=1.5)}, measure=measure)
