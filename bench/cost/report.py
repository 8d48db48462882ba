"""Write the costs as JSON, as Markdown tables, and as a figure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from bench.cost.plot import draw_costs
from bench.cost.prices import FIGURES
from bench.cost.study import MODES

__all__ = ["markdown", "write"]

_TITLES: Final = {"exact": "exact tokens only", "any": "any profile"}
_PARTS: Final = ("compute", "hashes", "audits", "relay", "gas_l2", "gas_mainnet", "total_l2", "total_mainnet")
_RULES: Final = """\
US dollars for a million tokens of answer, together with the prompts that they answer (the mix is listed below).

- Compute: measured seconds at the price of all machines of the route, as if nobody else used them meanwhile.
- Hashes and leaves: their measured share of the engine's time (bench/results/engine.json), added to all of it: it was
  measured on prompts, where it is largest. The history's runs make none.
- Audits: each stage is drawn at the audit rate and run again, which is taken to last as long as the first time; it is
  one parallel pass, so this is a bound from above.
- Relay: rows between stages in the candidate's codec, ids, frames' heads, leaves and progress to the payer. With
  guessing it is a bound from above.
- Gas: whole transactions (bench/results/gas.json). A swarm has a hop to the gateway, one to the worker and one to each
  stage, every hop another operator's; one node is one operator with one hop. Every channel is opened once in as many
  jobs as are settled together; one that is used for longer costs less.
- Off is no method at all; always-on is what engines do anyway: batching, prefix cache, chunks, compiled code.
- Not counted: the payer's own checks, disputes, interest on stakes, machines that wait for work.
"""


def write(found: Mapping[str, Any], folder: Path) -> None:
    """Write cost.json, cost.md and cost.png."""
    folder.mkdir(parents=True, exist_ok=True)
    prices = {name: asdict(each) for name, each in FIGURES.items()}
    (folder / "cost.json").write_text(json.dumps({**found, "prices": prices}, indent=1) + "\n", encoding="utf-8")
    (folder / "cost.md").write_text("\n".join(markdown(found)) + "\n", encoding="utf-8")
    draw_costs(found, folder / "cost.png")


def markdown(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the report's lines."""
    yield "# What a million tokens cost\n"
    yield _RULES
    yield f"Selector: {found['selector']}. History: {', '.join(found['history'])}, {found['rows']} rows."
    yield f"Settled as {found['case']} (payers x jobs of each). Totals are on a rollup or on Ethereum.\n"
    yield from _mixes(found["mix"])
    for regime, settings in found["settings"].items():
        yield f"\n## {_TITLES[regime]}\n"
        yield from _costs(settings)
    yield "\n![Costs](cost.png)\n"
    yield from _swarms(found["swarm_over_one_node"])
    yield from _directions(found["one_request"])
    yield from _models(found["models"])
    yield from _gas(found["gas"])
    yield from _prices()


def _mixes(mix: Mapping[str, Any]) -> Iterator[str]:
    rows = [
        [
            name,
            f"{each['cells']}",
            f"{each['prompt_tokens']:.0f}",
            f"{each['answer_tokens']:.0f}",
            f"{each['prompt_per_answer_token']:.1f}",
            f"{each['hourly_usd']:.2f}",
        ]
        for name, each in mix.items()
    ]
    head = ["setting", "cells", "prompt tokens a job", "answer tokens a job", "prompt for each answer token", "USD/h"]
    yield from _table(head, rows)


def _costs(settings: Mapping[str, Any]) -> Iterator[str]:
    rows = [
        [name, mode, *(_usd(modes[mode][part]) for part in _PARTS)]
        for name, modes in settings.items()
        for mode in MODES
        if modes[mode] is not None
    ]
    names = [part.replace("_l2", ", rollup").replace("_mainnet", ", Ethereum") for part in _PARTS]
    yield from _table(["setting", "methods", *names], rows)


def _swarms(found: Mapping[str, Any]) -> Iterator[str]:
    yield "\n## One node against the swarm\n"
    yield "How many times a swarm costs what one node does, over the cells that both have (geometric means). A swarm is"
    yield "for models that one machine does not hold; where one does, this is what it costs on top. Where stages serve"
    yield "other jobs while they wait for each other, compute is at best the last column.\n"
    rows = [
        [_TITLES[regime], name, mode, f"{each[mode]['cells']}", *_times(each[mode])]
        for regime, settings in found.items()
        for name, each in settings.items()
        for mode in MODES
    ]
    head = ["tokens", "swarm", "methods", "cells", "all, on a rollup", "compute", "compute if stages are shared"]
    yield from _table(head, rows)


def _times(each: Mapping[str, Any]) -> list[str]:
    names = ("total_l2", "compute", "compute_if_stages_are_shared")
    return ["not measured" if each[name] is None else f"{each[name]:.2f}" for name in names]


def _directions(found: Mapping[str, Any]) -> Iterator[str]:
    yield "\n## Prompt and answer apart\n"
    yield "Compute for a million tokens, always-on, of cells with one request at a time. Cached tokens count as prompt."
    yield ""
    rows = [
        [name, f"{each['cells']}", _usd(each["input"]), _usd(each["output"])] for name, each in found.items() if each
    ]
    yield from _table(["setting", "cells", "prompt", "answer"], rows)


def _models(found: Mapping[str, Any]) -> Iterator[str]:
    yield "\n## By model, exact tokens only, on a rollup\n"
    rows = [
        [model, name, *("" if modes[mode] is None else _usd(modes[mode]) for mode in MODES)]
        for model, settings in found.items()
        for name, modes in settings.items()
        if any(modes[mode] is not None for mode in MODES)
    ]
    yield from _table(["model", "setting", *MODES], rows)


def _gas(found: Mapping[str, Any]) -> Iterator[str]:
    yield "\n## Gas by how much is settled together\n"
    yield "Per million tokens of answer, at the answers' length above: longer answers cost less in proportion.\n"
    rows = [
        [name, case, f"{each['gas_per_job']:,.0f}", _usd(each["l2"]), _usd(each["mainnet"])]
        for name, cases in found.items()
        for case, each in cases.items()
    ]
    yield from _table(["setting", "payers x jobs", "gas a job", "rollup", "Ethereum"], rows)


def _prices() -> Iterator[str]:
    yield "\n## Prices and sizes used\n"
    rows = [[each.what, f"{each.value:g}", each.unit, each.source, each.date] for each in FIGURES.values()]
    yield from _table(["what", "value", "unit", "why, or from where", "as of"], rows)


def _usd(value: float) -> str:
    """Return dollars with three digits that matter."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
