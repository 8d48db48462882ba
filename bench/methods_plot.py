"""Draw latency and throughput of each method by batch size."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

__all__ = ["draw_figure"]


def draw_figure(found: Mapping[str, Any], path: Path) -> None:
    """Write a PNG with two panels: seconds a request, and new tokens a second; both axes are logarithmic."""
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.2), constrained_layout=True)
    titles = {
        "latency_s": "mean time to the last token (s), lower is better",
        "tokens_s": "new tokens a second, higher is better",
    }
    for panel, (key, title) in zip(panels, titles.items(), strict=True):
        for method, cells in found["cells"].items():
            batches = [int(batch) for batch in cells]
            panel.plot(batches, [cells[str(batch)][key] for batch in batches], marker="o", linewidth=1.6, label=method)
        panel.set_xscale("log", base=2)
        panel.set_yscale("log")
        panel.set_xticks(batches, [str(batch) for batch in batches])
        panel.set_xlabel("requests at once")
        panel.set_title(title, fontsize=10)
        panel.grid(alpha=0.3)
    panels[0].legend(fontsize=9)
    grid = found["grid"]
    figure.suptitle(
        f"{found['model']}: {grid['shared']} shared + {grid['own']} own prompt tokens, {grid['answer']} new",
        fontsize=11,
    )
    figure.savefig(path, dpi=130)
    plt.close(figure)
