"""Draw what the report says: regret by selector and split, the matrix P, intervals against truth, and trying."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("Agg")
import numpy as np
from bench.selector.cells import REGIMES, Cell
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.ticker import FuncFormatter, NullFormatter

from plait_node.selector.candidates import CANDIDATES

__all__ = ["draw_calibration", "draw_matrix", "draw_regret", "draw_streamline"]

_COLOURS: Final = {"exact": "#1f77b4", "any": "#d95f02"}
_TITLES: Final = {"exact": "exact tokens only", "any": "any profile"}
_LEAST: Final = 0.05  # per cent; what is below is drawn here
_DPI: Final = 130


def draw_regret(splits: Mapping[str, Any], path: Path) -> None:
    """Write a panel per measured split: mean regret in per cent with its 95 % interval, worst selector on top."""
    measured = {name: found for name, found in splits.items() if isinstance(found, dict)}
    first = next(iter(measured.values()))["any"]["selectors"]
    order = sorted(first.keys() - {"oracle"}, key=lambda name: -first[name]["regret_mean"])
    figure, panels = plt.subplots(
        1, len(measured), figsize=(3.4 * len(measured) + 1.6, 5.4), sharey=True, squeeze=False, constrained_layout=True
    )
    for panel, (name, found) in zip(panels[0], measured.items(), strict=True):
        for regime, shift in zip(REGIMES, (0.14, -0.14), strict=True):
            _dots(panel, order, found[regime]["selectors"], regime, shift)
        panel.set_xscale("log")
        panel.set_xlim(_LEAST * 0.8, None)
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.set_title(name, fontsize=10)
        panel.set_xlabel("mean regret, %")
        panel.grid(alpha=0.3, axis="x")
    panels[0][0].set_yticks(range(len(order)), order)
    for label in panels[0][0].get_yticklabels():
        label.set_fontweight("bold" if label.get_text().startswith("ours") else "normal")
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=9)
    figure.suptitle("Seconds of the choice over those of the measured best, less 1 (95 % intervals)", fontsize=11)
    _saved(figure, path)


def _dots(panel: Axes, order: Sequence[str], selectors: Mapping[str, Any], regime: str, shift: float) -> None:
    means = np.array([max(_LEAST, 100 * selectors[name]["regret_mean"]) for name in order])
    ends = np.array(
        [[max(_LEAST, 100 * each) for each in selectors[name]["interval"]["regret_mean"]] for name in order]
    )
    places = np.arange(len(order)) - shift
    errors = np.maximum(0.0, np.stack([means - ends[:, 0], ends[:, 1] - means]))
    panel.errorbar(
        means, places, xerr=errors, fmt="o", markersize=4, linewidth=1.2, color=_COLOURS[regime], label=_TITLES[regime]
    )


def draw_matrix(cells: Sequence[Cell], path: Path) -> None:
    """Write P as a heat map: speed-up over the cell's default, a row a cell, the best of each row marked."""
    measured = dict.fromkeys(name for cell in cells for name in cell.timings)
    names = [*(name for name in CANDIDATES if name in measured), *(name for name in measured if name not in CANDIDATES)]
    ordered = sorted(cells, key=lambda cell: (cell.key[2], cell.key[1], cell.key[0], cell.key[3]))
    values = np.full((len(ordered), len(names)), np.nan)
    for index, cell in enumerate(ordered):
        for name, timing in cell.timings.items():
            values[index, names.index(name)] = np.log2(cell.timings[cell.default].seconds / timing.seconds)
    figure, panel = plt.subplots(figsize=(9.5, 2.0 + 0.125 * len(ordered)), constrained_layout=True)
    colours = plt.get_cmap("RdBu").with_extremes(bad="#e8e8e8")
    shown = panel.imshow(values, aspect="auto", cmap=colours, norm=TwoSlopeNorm(0.0, -3.0, 3.0), interpolation="none")
    best = [int(np.nanargmax(row)) for row in values]
    panel.scatter(best, range(len(best)), s=5, color="black", label="measured best")
    panel.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
    labels = [f"{cell.key[0]} ×{cell.key[3]}, {cell.key[1]}, {cell.key[2]}" for cell in ordered]
    panel.set_yticks(range(len(labels)), labels, fontsize=5.5)
    bar = figure.colorbar(shown, ax=panel, shrink=min(1.0, 30 / len(ordered)), extend="both", ticks=range(-3, 4))
    bar.ax.set_yticklabels([f"{2.0**power:g}×" for power in range(-3, 4)])
    bar.set_label("speed over the default (always on)", fontsize=9)
    panel.set_title("P: every candidate in every cell; black: the measured best; grey: not measured", fontsize=10)
    _saved(figure, path)


def draw_calibration(
    splits: Mapping[str, Any], forecasts: Mapping[str, list[tuple[float, float, float, float, bool]]], path: Path
) -> None:
    """Write shares of measured times below, within and above the intervals, and forecasts against measured times."""
    figure, (bars, points) = plt.subplots(1, 2, figsize=(11, 4.4), constrained_layout=True)
    names = list(forecasts)
    start = np.zeros(len(names))
    for part, colour in (("below", "#7fb3d5"), ("within", "#cfd8dc"), ("above", "#e59866")):
        shares = np.array([100 * splits[name]["calibration"][part] for name in names])
        bars.barh(names, shares, left=start, color=colour, label=f"{part} the interval")
        for place, (left, share) in enumerate(zip(start, shares, strict=True)):
            if share >= 4:
                bars.text(left + share / 2, place, f"{share:.0f}", ha="center", va="center", fontsize=8)
        start += shares
    for edge in (10, 90):
        bars.axvline(edge, color="black", linewidth=0.8, linestyle="--")
    bars.set_xlim(0, 100)
    bars.invert_yaxis()
    bars.set_xlabel("measured times, % (dashed: where 10th and 90th percentile should lie)")
    bars.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 1.13), ncols=3, frameon=False)
    for name in names:
        measured, forecast = np.array([each[:2] for each in forecasts[name]]).T
        points.scatter(measured, forecast / measured, s=4, alpha=0.35, linewidths=0, label=name)
    points.axhline(1.0, color="black", linewidth=0.8)
    points.set_xscale("log")
    points.set_yscale("log", base=2)
    low, high = points.get_ylim()
    points.set_ylim(min(low, 0.4), max(high, 2.5))
    points.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    points.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    points.set_xlabel("measured, s")
    points.set_ylabel("forecast over measured")
    points.grid(alpha=0.3)
    points.legend(fontsize=8, markerscale=3)
    _saved(figure, path)


def draw_streamline(found: Mapping[str, Any], path: Path) -> None:
    """Write what trying costs, in jobs run by default, against the regret that is left; dashed: choosing unseen."""
    figure, panel = plt.subplots(figsize=(6.8, 4.2), constrained_layout=True)
    for regime in REGIMES:
        rows, colour = found[regime]["halving"], _COLOURS[regime]
        cost = [row["jobs_by_default_in_that_time"] for row in rows]
        lost = [100 * row["regret_mean"] for row in rows]
        panel.plot(cost, lost, marker="o", markersize=4, color=colour, label=f"successive halving, {_TITLES[regime]}")
        ours = 100 * found[regime]["zero_shot"]["regret_mean"]
        panel.axhline(ours, color=colour, linestyle="--", linewidth=0.9)
        panel.plot(0, ours, marker="D", color=colour, linestyle="none", label=f"ours, no trial, {_TITLES[regime]}")
    panel.set_xlim(-0.7, None)
    panel.set_ylim(0, None)
    panel.set_xlabel("time of all trials of a cell, in jobs done by default")
    panel.set_ylabel("mean regret of what is chosen then, %")
    panel.grid(alpha=0.3)
    panel.legend(fontsize=8)
    _saved(figure, path)


def _saved(figure: Any, path: Path) -> None:  # noqa: ANN401 -- matplotlib's own type is not exported with stubs
    figure.savefig(path, dpi=_DPI)
    plt.close(figure)
