"""All selectors of the comparison, by the names that tables show."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.selector.baselines.alors import Alors
from bench.selector.baselines.always_on import AlwaysOn
from bench.selector.baselines.argosmart import Argosmart
from bench.selector.baselines.boosting import Boosting
from bench.selector.baselines.chance import Chance
from bench.selector.baselines.expert import Expert
from bench.selector.baselines.face import Selector
from bench.selector.baselines.forest import Forest
from bench.selector.baselines.global_best import GlobalBest
from bench.selector.baselines.isac import Isac
from bench.selector.baselines.metainf import MetaInf
from bench.selector.baselines.ncf import Ncf
from bench.selector.baselines.oracle import Oracle
from bench.selector.baselines.roofline import Roofline
from bench.selector.cells import Cell
from bench.selector.ours import Ours

from plait_node.selector.embeddings import Embeddings
from plait_node.selector.predictor import Options

__all__ = ["NOT_BASELINES", "makers"]

NOT_BASELINES = frozenset({"ours", "ours, cautious", "oracle"})


def makers(
    cells: Sequence[Cell], embeddings: Embeddings | None, options: Options | None = None
) -> dict[str, Callable[[], Selector]]:
    """Return a maker per selector; MetaInf needs embeddings. The oracle alone is given the cells to be asked about."""
    kinds: list[type[Selector]] = [
        Chance,
        AlwaysOn,
        Expert,
        GlobalBest,
        Isac,
        Argosmart,
        Alors,
        Ncf,
        Forest,
        Boosting,
        Roofline,
    ]
    found: dict[str, Callable[[], Selector]] = {kind.name: kind for kind in kinds}
    if embeddings is not None:
        found[MetaInf.name] = lambda: MetaInf(embeddings)
    found[Ours.name] = lambda: Ours(embeddings, options)
    found[Oracle.name] = lambda: Oracle(cells)
    return found
