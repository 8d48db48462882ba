"""What guessing ahead gains when stages are far apart: the way there and back is paid once for all ids that were right.

Two stages of SmolLM2, each as far from the other and from the worker as the weather says. A text that repeats itself,
prose whose greedy answer soon does so too, and prose that is drawn, another one for each request; the selector may
choose look-up for any of them, so that prose must not lose.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from statistics import fmean
from typing import Any, Final

from bench.swarm.engines import SMOLLM2
from bench.swarm.figure import Bar, Found, Part, Setting, interleaved
from bench.swarm.hosts import Weather, opened_hosts
from bench.swarm.network import Swarm, swarm
from bench.swarm.texts import PROSE, REPETITIVE, ids_of

__all__ = ["PART", "distance"]

_HALVES: Final = (0, 15, 30)
_TRIPS_S: Final = (0.025, 0.05, 0.1)
_TOKENS: Final = 64
_DEPTH: Final = 15
_DRAWN: Final = 1_000_000  # a temperature of 1


async def distance(setting: Setting) -> Found:
    """Measure tokens a second after the first token, with look-up over without, at each distance."""
    ratios: dict[str, float] = {}
    details: dict[str, Any] = {"tokens": _TOKENS, "depth": _DEPTH}
    prose = ids_of(SMOLLM2, PROSE)
    texts = {"repetitive": (ids_of(SMOLLM2, REPETITIVE), 0), "prose": (prose, 0), "drawn_prose": (prose, _DRAWN)}
    details["sha256"] = {name: _name(ids) for name, (ids, _) in texts.items()}
    for trip_s in _TRIPS_S:
        names = [f"stage-{number}" for number in range(1, len(_HALVES))]
        async with opened_hosts(names, Weather(rtt_s=trip_s)) as hosts:
            details["hosts"] = hosts.how
            folder = setting.folder / f"{1e3 * trip_s:g}ms"
            async with swarm(folder, SMOLLM2, _HALVES, threads=setting.threads, hosts=hosts) as over:
                for name, (ids, temperature) in texts.items():
                    key = f"wan_speculation_gain_{name}_{1e3 * trip_s:g}ms"
                    ratios[key], details[key] = await _gain(over, ids, temperature, repeats=setting.repeats)
    return Found(ratios=ratios, details=details)


async def _gain(over: Swarm, ids: Sequence[int], temperature: int, *, repeats: int) -> tuple[float, dict[str, Any]]:
    accepted: list[float] = []
    answers: set[tuple[int, ...]] = set()

    async def rate(depth: int) -> float:
        # As nodes do: what a step takes is announced, and guesses are made by it.
        over.worker.step_micros = max(1, int(fmean(each["step_micros"] for each in await over.loads())))
        took = await over.worker.answer(ids, _TOKENS, depth=depth, temperature=temperature)
        await over.worker.settled()
        answers.add(took.ids)
        if depth:
            accepted.append(took.accepted)
        return 1 / took.step_s

    found = await interleaved(
        {"plain": lambda _: rate(0), "look-up": lambda _: rate(_DEPTH)}, repeats=repeats, pause_s=0.0
    )
    details: dict[str, Any] = {name: values.told() for name, values in found.items()}
    details |= {"unit": "tokens/s", "accepted": [round(each, 3) for each in accepted]}
    if not temperature:
        details["same_tokens"] = len(answers) == 1
    return found["look-up"].median / found["plain"].median, details


def _name(ids: Sequence[int]) -> str:
    return hashlib.sha256(b"".join(each.to_bytes(4, "big") for each in ids)).hexdigest()


PART: Final = Part(
    name="distance",
    bars={f"wan_speculation_gain_repetitive_{1e3 * trip_s:g}ms": Bar(bound=4.0) for trip_s in _TRIPS_S}
    | {
        f"wan_speculation_gain_{prose}_{1e3 * trip_s:g}ms": Bar(bound=0.95)
        for prose in ("prose", "drawn_prose")
        for trip_s in _TRIPS_S
    },
    measure=distance,
)
