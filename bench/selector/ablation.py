"""What each part of our selector adds: the same splits with a part left out, against the whole one, paired by cell.

One seed each; learning online is replayed separately (`replay`), since without it nothing in a split changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from bench.selector.cells import REGIMES, Cell
from bench.selector.evaluate import Run, Split, allowed_cells, evaluate
from bench.selector.metrics import paired, score
from bench.selector.ours import Ours

from plait_node.selector.embeddings import Embeddings
from plait_node.selector.predictor import Options

__all__ = ["WHOLE", "ablation", "variants"]

WHOLE: Final = "whole"
_FOLDS: Final = 2  # inner ones move intervals only, which no choice here reads: no time is spent on them


def variants(embeddings: Embeddings | None, other: Embeddings | None) -> dict[str, Callable[[], Ours]]:
    """Return a maker per variant; those with texts only where the encoder is installed."""
    bare = Options(embeddings=False, folds=_FOLDS)
    found: dict[str, Callable[[], Ours]] = {"without embeddings": lambda: Ours(None, bare)}
    if embeddings is not None:
        numberless = Options(numeric=False, folds=_FOLDS)
        unrooted = Options(roofline=False, folds=_FOLDS)
        found["without numeric features"] = lambda: Ours(embeddings, numberless)
        found["without the roofline"] = lambda: Ours(embeddings, unrooted)
    if other is not None:
        found[f"embeddings of {other.name}"] = lambda: Ours(other, Options(folds=_FOLDS))
    none = Options(embeddings=False, numeric=False, roofline=False, folds=_FOLDS)
    found["with none of these"] = lambda: Ours(None, none)
    return found


def ablation(
    cells: Sequence[Cell], split: Split, whole: Run, makers: Mapping[str, Callable[[], Ours]]
) -> dict[str, dict[str, Any]]:
    """Return per regime and variant: top-1, mean regret, and how much more that is than the whole one's."""
    runs = evaluate(makers, cells, split, seeds=1)
    found: dict[str, dict[str, Any]] = {}
    for regime in REGIMES:
        allowed = allowed_cells(cells, regime)
        keep = np.array([not cell.noisy for cell in allowed])
        first = {WHOLE: whole, **runs}
        scores = {name: score(allowed, run.chosen[regime][:1]).take(keep) for name, run in first.items()}
        found[regime] = {
            name: {
                "top1": float(one.right.mean()),
                "regret_mean": float(one.regret.mean()),
                "more_regret": paired(one.regret, scores[WHOLE].regret),
            }
            for name, one in scores.items()
        }
    return found
