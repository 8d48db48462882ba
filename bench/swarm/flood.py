"""Two hundred callers at a network for eight jobs: what still comes out, who is refused and how, and what grows.

A chain, a broker, a gateway, a worker that takes eight jobs at once and three stages, each a process, on this machine's
cores together with the callers. Eight callers are the yardstick, before and after. Then two hundred keep one job each
in flight, or wait for as long as a refusal says. Goodput is the tokens that callers got, of answers of 32 tokens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final

from bench.swarm.callers import Callers, opened_callers, told
from bench.swarm.crowd import CrowdNetwork, Usage, watched, worst_growth
from bench.swarm.figure import Bar, Found, Part, Setting
from bench.swarm.tally import Tally, waits

from plait_node.selector.bench.settings import hardware_facts

__all__ = ["PART"]

_FEW, _MANY, _PAYERS = 8, 200, 20
_LEAST_S, _MOST_S = 20.0, 120.0  # of the yardstick


async def _flood(setting: Setting) -> Found:
    network = CrowdNetwork(
        folder=setting.folder / "network",
        hardware=await asyncio.to_thread(hardware_facts, "one-core", cores=2),
        say=lambda text: setting.say(f"    {text}"),
    )
    async with AsyncExitStack() as stack:
        stack.push_async_callback(network.stop)
        await network.start()
        callers = await stack.enter_async_context(opened_callers(network, setting.folder, _PAYERS))
        await callers.warm_up()
        return await _measured(setting, network, callers)


@dataclass(slots=True, kw_only=True)
class _Phase:
    """One phase: what callers saw, for how long, and what each process took meanwhile."""

    tally: Tally
    took: float
    usage: dict[str, Usage]

    @property
    def tokens_a_second(self) -> float:
        """Return the goodput."""
        return self.tally.tokens / self.took


async def _phase(network: CrowdNetwork, callers: Callers, count: int, seconds: float) -> _Phase:
    usage: dict[str, Usage] = {}
    measuring = asyncio.create_task(watched(network, usage))
    try:
        tally, took = await callers.ask(count, seconds, ending=measuring.cancel)
    finally:
        measuring.cancel()
        await asyncio.gather(measuring, return_exceptions=True)
    return _Phase(tally=tally, took=took, usage=usage)


async def _measured(setting: Setting, network: CrowdNetwork, callers: Callers) -> Found:
    short = min(_MOST_S, max(_LEAST_S, setting.seconds / 5))
    phases: dict[str, _Phase] = {}
    for name, count, seconds in (("before", _FEW, short), ("flood", _MANY, setting.seconds), ("after", _FEW, short)):
        phase = phases[name] = await _phase(network, callers, count, seconds)
        setting.say(f"  {name}: {phase.tokens_a_second:.1f} tokens/s, {len(phase.tally.answered)} jobs")
    return _found(phases, await callers.accounts())


def _found(phases: Mapping[str, _Phase], accounts: Mapping[str, Any]) -> Found:
    flood = phases["flood"]
    yardstick = (phases["before"].tokens_a_second + phases["after"].tokens_a_second) / 2
    waited = waits(flood.tally.answered)
    tallies = [phase.tally for phase in phases.values()]
    return Found(
        ratios={
            "flood_goodput": flood.tokens_a_second / yardstick,
            "flood_refused_wrongly": float(sum(len(each.early) + len(each.broken) for each in tallies)),
            "flood_jobs_failed": float(sum(sum(each.failed.values()) for each in tallies)),
            "flood_paid_wrongly": float(len(accounts["wrong"]) + accounts["answers_twice"]),
            "flood_rss_growth_a_minute": worst_growth(flood.usage),
            "flood_queueing_p99_s": waited["queueing_s"]["p99"],
        },
        details={
            "callers": _MANY,
            "yardstick_callers": _FEW,
            "payers": _PAYERS,
            "phases": {
                name: told(phase.tally, phase.took)
                | {"processes": {each: value.told(phase.took) for each, value in phase.usage.items()}}
                for name, phase in phases.items()
            },
            "accounts": accounts,
        },
    )


PART: Final = Part(
    name="flood",
    bars={
        "flood_goodput": Bar(bound=0.8),
        "flood_refused_wrongly": Bar(bound=0, at_most=True),
        "flood_jobs_failed": Bar(bound=0, at_most=True),
        "flood_paid_wrongly": Bar(bound=0, at_most=True),
        "flood_rss_growth_a_minute": Bar(bound=0.02, at_most=True),
    },
    measure=_flood,
)
