"""Draw what a million tokens cost by part, and what settling them costs by how much is settled together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("Agg")
from bench.cost.study import MODES
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

__all__ = ["draw_costs"]

_COLOURS: Final = {"compute": "#4c78a8", "verification": "#f58518", "relay": "#54a24b", "gas_l2": "#b279a2"}
_LABELS: Final = {"gas_l2": "gas, on a rollup"}
_TITLES: Final = {"exact": "exact tokens only", "any": "any profile"}
_WIDTH: Final = 0.8
_DPI: Final = 130


def draw_costs(found: Mapping[str, Any], path: Path) -> None:
    """Write a PNG: two panels of stacked parts (US dollars, one a regime), one of gas (logarithmic)."""
    figure, panels = plt.subplots(1, 3, figsize=(15, 5), width_ratios=(1, 1, 0.8), constrained_layout=True)
    for panel, (regime, settings) in zip(panels, found["settings"].items(), strict=False):
        _stacks(panel, settings)
        panel.set_title(_TITLES[regime], fontsize=10)
        panel.sharey(panels[0])
    panels[0].set_ylabel("US dollars a million answer tokens, prompts included", fontsize=9)
    panels[0].legend(fontsize=9, loc="upper left")
    _settling(panels[2], found["gas"])
    word = "an oracle, as no predictor was there" if found["selector"].startswith("oracle") else "predicted"
    figure.suptitle(f"Selector: {word}. Settled as {found['case']} (payers x jobs of each).", fontsize=11)
    figure.savefig(path, dpi=_DPI)
    plt.close(figure)


def _stacks(panel: Axes, settings: Mapping[str, Any]) -> None:
    """Draw a bar for each setting and mode; a setting's modes stand together."""
    bars = [
        (index * (len(MODES) + 1) + place, mode, modes[mode])
        for index, modes in enumerate(settings.values())
        for place, mode in enumerate(MODES)
        if modes[mode] is not None
    ]
    under = [0.0] * len(bars)
    for part, colour in _COLOURS.items():
        heights = [each[part] for _, _, each in bars]
        label = _LABELS.get(part, part)
        panel.bar([at for at, _, _ in bars], heights, _WIDTH, bottom=under, color=colour, label=label)
        under = [low + height for low, height in zip(under, heights, strict=True)]
    for (at, _, _), top in zip(bars, under, strict=True):
        panel.annotate(f"{top:.2f}", (at, top), ha="center", va="bottom", fontsize=8)
    panel.set_xticks([at for at, _, _ in bars], [mode for _, mode, _ in bars], rotation=60, fontsize=8)
    for index, (name, modes) in enumerate(settings.items()):
        middle = index * (len(MODES) + 1) + (len(MODES) - 1) / 2
        cells = next((each["cells"] for each in modes.values() if each), 0)
        panel.annotate(
            f"{name}\n{cells} cells",
            (middle, -0.2),
            xycoords=("data", "axes fraction"),
            ha="center",
            va="top",
            fontsize=9,
        )
    panel.grid(alpha=0.3, axis="y")


def _settling(panel: Axes, gas: Mapping[str, Any]) -> None:
    """Draw dollars of gas by setting, on a rollup and on Ethereum, against how much is settled together."""
    colours = plt.get_cmap("tab10")
    for index, (name, cases) in enumerate(gas.items()):
        for chain, style, title in (("l2", "-", "rollup"), ("mainnet", "--", "Ethereum")):
            values = [each[chain] for each in cases.values()]
            panel.plot(list(cases), values, style, marker="o", color=colours(index), label=f"{name}, {title}")
    panel.set_yscale("log")
    panel.set_xlabel("payers x jobs of each that are settled together")
    panel.set_title("gas for a million tokens of answer, US dollars", fontsize=10)
    panel.grid(alpha=0.3)
    panel.legend(fontsize=8)
