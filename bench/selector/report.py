"""Write the findings as JSON, as Markdown tables, and as plots."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bench.selector.cells import REGIMES
from bench.selector.plots import draw_calibration, draw_matrix, draw_regret, draw_streamline
from bench.selector.slo import DEADLINES
from bench.selector.study import Study

__all__ = ["markdown", "write"]

_TITLES: Final = {"exact": "exact tokens only", "any": "any profile"}
_RULES: Final = """\
- A cell is one kind of task, model, setting and batch; whole cells are held out, together with all their rows.
- Regimes: "exact tokens only" leaves the candidates that promise the tokens of an fp32 run; "any profile" leaves all.
- Selectors see questions without outcomes. Scalers, projections, imputation and hyperparameters are fitted on training
  cells only (inner folds); no early stopping, no look at a test fold.
- A tie: the chosen candidate is slower than the best by no more than the greater of the two candidates' measured noise,
  at most 3 %. Cells whose best or second best candidate is noisier than that are dropped and counted, but are trained
  on; raw figures count without ties, and "all cells" without dropping.
- Macro F1 is over the candidates that are best or chosen somewhere; a tied choice takes the best one's label.
- Regret: seconds of the choice over those of the best, less 1. The default is always-on: batching, prefix cache,
  chunked prefill and compiled code on, nothing else. Gains are geometric means of seconds ratios.
- SLO hits are of the cells in which some candidate meets the deadline; deadlines are shares of the default's times.
- Money: seconds at the setting's price an hour; the ratio is the sum over cells against that of the default.
- Intervals: middle 95 % of a bootstrap over cells and seeds; differences are paired by cell.
"""


def write(made: Study, folder: Path) -> None:
    """Write selector.json, selector.md and four PNGs."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "selector.json").write_text(json.dumps(_plain(made.found), indent=1) + "\n", encoding="utf-8")
    draw_regret(made.found["splits"], folder / "selector-regret.png")
    draw_matrix(made.cells, folder / "selector-matrix.png")
    draw_calibration(made.found["splits"], made.forecasts, folder / "selector-calibration.png")
    draw_streamline(made.found["streamline"], folder / "selector-streamline.png")
    (folder / "selector.md").write_text("\n".join(markdown(made.found)) + "\n", encoding="utf-8")


def markdown(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the report's lines."""
    yield "# Choosing how to run: our selector and its baselines\n"
    yield from _head(found)
    yield "\n## Targets\n"
    yield from _targets(found)
    for name, split in found["splits"].items():
        yield f"\n## {name}\n"
        yield from [split] if isinstance(split, str) else _split(split)
    yield "\n![Regret](selector-regret.png)\n"
    yield from _online(found)
    yield from _trying(found["streamline"])
    yield from _rest(found)


def _head(found: Mapping[str, Any]) -> Iterator[str]:
    dropped = ", ".join(f"{count} ({_TITLES[regime]})" for regime, count in found["dropped"].items())
    yield f"{found['rows']} rows in {found['cells']} cells, {found['candidates_mean']:.1f} candidates a cell;"
    yield f"{found['random_weight_share']:.0%} of the rows are of random weights, which speculation is not tried on."
    yield f"Dropped as too noisy: {dropped}. {found['seeds']} seeds. Encoder: {found['encoder'] or 'not installed'}.\n"
    yield f"Models: {', '.join(found['models'])}. Tasks: {', '.join(found['tasks'])}."
    yield f"Settings: {', '.join(found['settings'])}. Chips: {', '.join(found['chips'])}.\n"
    yield _RULES
    for regime in REGIMES:
        best = sorted(found["best"][regime].items(), key=lambda each: -each[1])
        yield f"Measured best, {_TITLES[regime]}: {', '.join(f'{name} {count}' for name, count in best)}.\n"
    yield "Deadlines: " + "; ".join(
        f"{kind}: {', '.join(f'{name} {value:g}' for name, value in _parts(kind))}" for kind in sorted(DEADLINES)
    )
    yield "(of the default's time to the first token, time per further token, whole time)."


def _parts(kind: str) -> list[tuple[str, float]]:
    deadline = DEADLINES[kind]
    named = (("ttft", deadline.ttft), ("tpot", deadline.tpot), ("seconds", deadline.seconds))
    return [(name, value) for name, value in named if math.isfinite(value)]


def _targets(found: Mapping[str, Any]) -> Iterator[str]:
    rows = [
        [name, _figure(each), each["target"], "yes" if each["met"] else "**no**"]
        for name, each in found["targets"].items()
    ]
    yield from _table(["target", "figure", "wanted", "met"], rows)
    missed = {name: each["why"] for name, each in found["targets"].items() if not each["met"]}
    yield "\nNo target is missed." if not missed else "\nMissed, and why:\n"
    yield from (f"- {name}: {why}." for name, why in missed.items())


def _figure(target: Mapping[str, Any]) -> str:
    shown = f"{target['figure']:.4g}"
    return f"{shown} [{', '.join(f'{each:.4g}' for each in target['interval'])}]" if "interval" in target else shown


_COLUMNS: Final = (
    ("top-1", "top1", "share"),
    ("raw", "top1_raw", "share"),
    ("F1", "macro_f1", "share"),
    ("F1 raw", "macro_f1_raw", "share"),
    ("mean regret", "regret_mean", "percent"),
    ("p95", "regret_p95", "percent"),
    ("over always-on", "gain_over_default", "times"),
    ("over none", "gain_over_none", "times"),
    ("SLO", "slo_hit", "share"),
    ("cost", "cost_ratio", "share"),
)
_LAST: Final = ("all cells: raw top-1, regret", "real weights: regret")


def _split(split: Mapping[str, Any]) -> Iterator[str]:
    for regime in REGIMES:
        found = split[regime]
        apart = found["ours_against_best"]
        yield f"### {_TITLES[regime]} ({split['folds']} folds)\n"
        selectors = sorted(found["selectors"].items(), key=lambda each: -each[1]["regret_mean"])
        rows = [_row(name, each) for name, each in selectors]
        yield from _table(["selector", *(title for title, _, _ in _COLUMNS), *_LAST], rows)
        yield f"\nOurs against the best baseline, {apart['baseline']}: regret {_points(apart)} points."
        yield f"A deadline can be met in {_reachable(found):.0%} of the cells.\n"
        lost = [_lost(each) for each in found["worst"] if each["regret"] > 0]
        yield f"Ours lost most in (seed 0): {'; '.join(lost) or 'none'}.\n"
        if "ablation" in split:
            yield from _ablation(split["ablation"][regime])
    told = split["calibration"]
    yield f"Forecasts: {told['within']:.0%} of the measured times within the interval (80 % wanted),"
    yield f"{told['below']:.0%} below, {told['above']:.0%} above; {told['inside']:.0%} of the pairs counted as inside"
    yield f"the measured range; median error {told['error_median']:.1%}, median width {told['width_median']:.2f} times."


def _row(name: str, found: Mapping[str, Any]) -> list[str]:
    shown = [_shown(found[key], kind) for _, key, kind in _COLUMNS]
    low, high = found["interval"]["regret_mean"]
    shown[4] += f" [{100 * low:.1f}, {100 * high:.1f}]"
    low, high = found["interval"]["top1"]
    shown[0] += f" [{low:.2f}, {high:.2f}]"
    low, high = found["interval"]["gain_over_default"]
    shown[6] += f" [{low:.2f}, {high:.2f}]"
    every, real = found["all_cells"], found["regret_mean_real_weights"]
    title = f"**{name}**" if name.startswith("ours") else name
    noisy = f"{every['top1_raw']:.2f}, {100 * every['regret_mean']:.1f} %"
    return [title, *shown, noisy, "-" if real is None else f"{100 * real:.1f} %"]


def _shown(value: float, kind: str) -> str:
    if math.isnan(value):
        return "-"
    return {"share": f"{value:.2f}", "percent": f"{100 * value:.1f} %", "times": f"{value:.2f}×"}[kind]


def _reachable(found: Mapping[str, Any]) -> float:
    return float(found["selectors"]["oracle"]["slo_reachable"])


def _lost(each: Mapping[str, Any]) -> str:
    cell = " ".join(str(part) for part in each["cell"])
    return f"{cell}: {each['chosen']}, best {each['best']} ({each['regret']:.1%}, noise {each['noise']:.1%})"


def _ablation(found: Mapping[str, Any]) -> Iterator[str]:
    rows = [
        [
            name,
            f"{each['top1']:.2f}",
            f"{100 * each['regret_mean']:.2f} %",
            _points(each["more_regret"]),
        ]
        for name, each in found.items()
    ]
    yield from _table(["our selector, one seed", "top-1", "mean regret", "more than the whole, points"], rows)
    yield ""


def _points(apart: Mapping[str, Any]) -> str:
    low, high = (100 * end for end in apart["interval"])
    return f"{100 * apart['difference']:+.2f} [{low:+.2f}, {high:+.2f}]"


def _online(found: Mapping[str, Any]) -> Iterator[str]:
    yield "## Learning online\n"
    yield "A held-out part is replayed in random orders; only the chosen candidate's time is revealed.\n"
    rows = [
        [name, _TITLES[regime], learns, _percent(one["regret_mean"]), _percent(one["second_half"])]
        for name, split in found["splits"].items()
        if isinstance(split, dict) and "online" in split
        for regime, each in split["online"].items()
        for learns, one in each.items()
    ]
    yield from _table(["split", "regime", "learning", "mean regret", "in the second half"], rows)


def _trying(found: Mapping[str, Any]) -> Iterator[str]:
    yield "\n## Choosing unseen against trying (successive halving; random split)\n"
    yield "Deviation of single trials: that of the measured repeats, wider by 1/sqrt(share) for a share of the answer;"
    yield "loading or packing weights is not counted.\n"
    for regime, each in found.items():
        rows = [
            [
                f"{row['first_share']:.3f}",
                f"{row['trials_mean']:.1f}",
                f"{row['trial_seconds_mean']:.2f}",
                f"{row['jobs_by_default_in_that_time']:.1f}",
                f"{row['trial_cost_mean']:.2e}",
                _percent(row["regret_mean"]),
            ]
            for row in each["halving"]
        ]
        yield f"### {_TITLES[regime]}: ours has {_percent(each['zero_shot']['regret_mean'])} after 0 s of trials\n"
        yield from _table(["first share", "trials", "seconds", "jobs by default", "money", "mean regret"], rows)
        good = each["cheapest_as_good"]
        if good is None:
            yield "\nNo schedule of trials reaches our regret.\n"
        else:
            yield f"\nAs good as ours: {good['trial_seconds_mean']:.2f} s of trials a cell, the time of"
            yield f"{good['jobs_by_default_in_that_time']:.1f} jobs by default, for {good['trial_cost_mean']:.2e}.\n"
    yield "![Trying](selector-streamline.png)"


def _rest(found: Mapping[str, Any]) -> Iterator[str]:
    decision = found["decision"]
    yield "\n## One decision\n"
    yield f"p50 {decision['p50_ms']:.2f} ms, p99 {decision['p99_ms']:.2f} ms on one core, texts embedded before"
    yield f"({decision['decisions']} decisions); CPU time {decision['cpu_p50_ms']:.2f} and"
    yield f"{decision['cpu_p99_ms']:.2f} ms; load average {decision['load']:.1f}.\n"
    yield "![Calibration](selector-calibration.png)\n\n![P](selector-matrix.png)"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f} %"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _plain(value: Any) -> Any:  # noqa: ANN401 -- JSON
    """Return the value with NaN as null, which JSON has no word for."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value
