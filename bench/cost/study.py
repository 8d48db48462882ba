"""Costs over a whole history: selector on, off, and the always-on default; one node against each swarm.

Cells of a setting weigh the same. Settings were measured on different cells (a fractional design), so a swarm is
compared with one node over the cells alone that both have: same task, model and batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from bench.cost.parts import CASES, MEASURED_CASE, MILLION, Parts, gas_per_job, gas_usd, hourly, parts_of
from bench.selector.cells import REGIMES, Cell, Regime

from plait_node.selector.candidates import NONE
from plait_node.selector.estimates import Predicts
from plait_node.selector.rows import Row

__all__ = ["MODES", "chosen", "study"]

MODES: Final = ("off", "always-on", "selector")
_ONE_NODE: Final = {"cpu": "one-core", "cuda": "gpu"}  # what a swarm of such devices is compared with


def study(
    cells: Sequence[Cell], *, predictor: Predicts | None, hash_share: float, gas: Mapping[str, int]
) -> dict[str, Any]:
    """Return all tables; without a predictor the selector is an oracle, which is said."""

    def cost(row: Row) -> Parts:
        return parts_of(row, hash_share=hash_share, gas=gas)

    parts = {
        regime: {
            mode: {cell.key: cost(row) for cell in cells if (row := chosen(cell, mode, regime, predictor)) is not None}
            for mode in MODES
        }
        for regime in REGIMES
    }
    settings = list(dict.fromkeys(cell.key[2] for cell in cells))
    return {
        "selector": "oracle: the measured best, no predictor was there"
        if predictor is None
        else "predicted; the predictor was fitted to these very cells",
        "case": MEASURED_CASE,
        "mix": {name: _mix([cell for cell in cells if cell.key[2] == name]) for name in settings},
        "settings": {
            regime: {name: {mode: _mean(parts[regime][mode], name) for mode in MODES} for name in settings}
            for regime in REGIMES
        },
        "models": {
            model: {name: {mode: _total(parts["exact"][mode], name, model) for mode in MODES} for name in settings}
            for model in dict.fromkeys(cell.key[1] for cell in cells)
        },
        "one_request": {name: _by_direction(cells, name) for name in settings},
        "swarm_over_one_node": {
            regime: {name: _against_one(cells, parts[regime], name) for name in settings if _stages(cells, name) > 1}
            for regime in REGIMES
        },
        "gas": _gas(cells, settings, gas),
    }


def chosen(cell: Cell, mode: str, regime: Regime, predictor: Predicts | None) -> Row | None:
    """Return the row by which a cell is run; None where it was not measured so."""
    rows = {row.candidate.name: row for row in cell.rows if regime == "any" or row.candidate.exact}
    if mode == "off":
        return rows.get(NONE.name)
    if mode == "always-on":
        return rows.get(cell.default)
    if not rows:
        return None
    if predictor is None:
        return min(rows.values(), key=lambda row: row.outcome.seconds)
    first = cell.rows[0]
    told = predictor.predict(first.task, first.model, first.hardware, [row.candidate for row in rows.values()])
    return rows[min(told, key=lambda each: each.seconds).candidate.name]


def _mix(cells: Sequence[Cell]) -> dict[str, float]:
    """Return the means of a job over cells, and the prompt tokens that come with each token of answer."""
    tasks = [cell.question.task for cell in cells]
    prompt = sum(task.prompt_tokens for task in tasks) / len(tasks)
    answer = sum(task.answer_tokens for task in tasks) / len(tasks)
    return {
        "cells": len(cells),
        "prompt_tokens": prompt,
        "answer_tokens": answer,
        "prompt_per_answer_token": sum(task.prompt_tokens / task.answer_tokens for task in tasks) / len(tasks),
        "hourly_usd": hourly(cells[0].question.hardware),
    }


def _of(parts: Mapping[Any, Parts], setting: str, model: str | None = None) -> list[Parts]:
    return [each for key, each in parts.items() if key[2] == setting and model in {None, key[1]}]


def _mean(parts: Mapping[Any, Parts], setting: str) -> dict[str, float] | None:
    found = _of(parts, setting)
    if not found:
        return None
    mean = Parts.mean(found)
    totals = {f"total_{chain}": mean.total(chain) for chain in ("l2", "mainnet")}
    return {"cells": len(found), **asdict(mean), "verification": mean.verification, **totals}


def _total(parts: Mapping[Any, Parts], setting: str, model: str) -> float | None:
    found = _of(parts, setting, model)
    return Parts.mean(found).total("l2") if found else None


def _by_direction(cells: Sequence[Cell], setting: str) -> dict[str, Any] | None:
    """Return compute for a million prompt tokens and a million answer tokens, always-on.

    Of cells with one request, where the time to the first token is the prompt's alone; cached tokens count as prompt.
    """
    found = [
        row
        for cell in cells
        if cell.key[2:] == (setting, 1) and (row := chosen(cell, "always-on", "exact", None)) is not None
    ]
    if not found:
        return None
    price = hourly(found[0].hardware) / 3_600 * MILLION
    prompts = [row.outcome.ttft_s / row.task.prompt_tokens * price for row in found]
    answers = [(row.outcome.seconds - row.outcome.ttft_s) / max(1, row.task.answer_tokens - 1) * price for row in found]
    return {"cells": len(found), "input": sum(prompts) / len(found), "output": sum(answers) / len(found)}


def _stages(cells: Sequence[Cell], setting: str) -> int:
    return next(cell.question.hardware.stages for cell in cells if cell.key[2] == setting)


def _against_one(cells: Sequence[Cell], parts: Mapping[str, Mapping[Any, Parts]], setting: str) -> dict[str, Any]:
    """Return by how many times a swarm costs more than one node, over cells that both have; geometric means."""
    hardware = next(cell.question.hardware for cell in cells if cell.key[2] == setting)
    one = _ONE_NODE[hardware.device]
    made: dict[str, Any] = {"one_node": one}
    for mode in MODES:
        of = parts[mode]
        pairs = [
            (each, of[task, model, one, batch])
            for (task, model, name, batch), each in of.items()
            if name == setting and (task, model, one, batch) in of
        ]
        made[mode] = {
            "cells": len(pairs),
            "total_l2": _ratio(pairs, lambda each: each.total("l2")),
            "compute": _ratio(pairs, lambda each: each.compute),
            # Other jobs may fill the time in which a stage waits for the others: at best each is always busy.
            "compute_if_stages_are_shared": _ratio(pairs, lambda each: each.compute, over=hardware.stages),
        }
    return made


def _ratio(pairs: Sequence[tuple[Parts, Parts]], of: Callable[[Parts], float], *, over: int = 1) -> float | None:
    if not pairs:
        return None
    return math.exp(sum(math.log(of(swarm) / over / of(one)) for swarm, one in pairs) / len(pairs))


def _gas(cells: Sequence[Cell], settings: Sequence[str], gas: Mapping[str, int]) -> dict[str, Any]:
    """Return gas per job and dollars for a million answer tokens, by setting and by how jobs are settled."""
    made: dict[str, Any] = {}
    for name in settings:
        answer = _mix([cell for cell in cells if cell.key[2] == name])["answer_tokens"]
        made[name] = {}
        for case, settled in CASES.items():
            used = gas_per_job(gas, stages=_stages(cells, name), case=settled)
            dollars = {chain: gas_usd(used * MILLION / answer, chain) for chain in ("l2", "mainnet")}
            made[name][case] = {"gas_per_job": used, **dollars}
    return made
