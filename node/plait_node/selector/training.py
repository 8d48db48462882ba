"""Where a worker's predictor comes from: the node's own, else the shipped one; and how the node's own is made.

Run as `python -m plait_node.selector.training FOLDER SHIPPED` it fits anew from the shipped history and the rows in
FOLDER, at the lowest priority, and keeps what came of it only if it foresees this node's last rows no worse than what
there was.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import logging
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from plait_node.selector.child import run_module
from plait_node.selector.errors import ArtefactError, HistoryError
from plait_node.selector.estimates import Predicts
from plait_node.selector.live import OBSERVED, Refit, Trained
from plait_node.selector.online import Corrections
from plait_node.selector.rows import Row, Rows

if TYPE_CHECKING:
    from plait_model.text_encoder import TextEncoder
    from plait_node.selector.embeddings import Embeddings

__all__ = ["SHIPPED", "error_of", "fit", "load_trained", "read_trained", "refit_in_background"]

SHIPPED: Final = Path(__file__).with_name("history")
PREDICTOR: Final = "predictor.plait"
VECTORS: Final = "predictor.npz"  # of the texts that it was trained with; absent where it was trained without
_HELD: Final = 0.2  # share of the node's rows that nothing is fitted to
_FIT_S: Final = 3_600.0
_NO_BETTER: Final = 3  # exit status

_log = logging.getLogger(__name__)


def load_trained(own: Path, *, shipped: Path = SHIPPED) -> Trained | None:
    """Return the node's own predictor, else the shipped one; None, and a warning, where neither can be used."""
    for folder in (own, shipped):
        try:
            found = read_trained(folder)
        except (ArtefactError, HistoryError, ImportError) as error:
            _log.warning("predictor not used file=%s error=%s", folder / PREDICTOR, error)
            continue
        if found is not None:
            return found
    return None


def read_trained(folder: Path, *, encoder: Callable[[str], TextEncoder] | None = None) -> Trained | None:
    """Return the predictor that lies in a folder, None where none does.

    A worker gives no encoder, as it loads no torch: texts that are new to it lie outside what was measured. Raises:
        ArtefactError, HistoryError: the predictor or its vectors are damaged.
        ImportError: what runs it is not installed.
    """
    path, vectors = folder / PREDICTOR, folder / VECTORS
    if not path.exists():
        return None
    from plait_node.selector.artefact import load  # noqa: PLC0415 -- lightgbm loads where there is a predictor only
    from plait_node.selector.embeddings import Embeddings  # noqa: PLC0415 -- as above

    predictor = load(path, embeddings=Embeddings.load(vectors, make=encoder) if vectors.exists() else None)
    return Trained(predictor=predictor, digest=hashlib.sha256(path.read_bytes()).hexdigest())


def refit_in_background(folder: Path, *, shipped: Path = SHIPPED) -> Refit:
    """Return what fits anew from the rows in `folder`, in a process of its own."""

    async def run() -> Trained | None:
        done = await run_module("plait_node.selector.training", str(folder), str(shipped), deadline_s=_FIT_S)
        if done not in (0, _NO_BETTER):
            raise HistoryError(f"the process that fits ended with {done}; see what it wrote above")
        return await asyncio.to_thread(read_trained, folder) if done == 0 else None

    return run


def fit(folder: Path, *, shipped: Path = SHIPPED) -> bool:
    """Fit anew, with the options of what there is; return whether what came of it was kept. Raise `SelectorError`."""
    from plait_node.selector.artefact import save  # noqa: PLC0415 -- as above
    from plait_node.selector.predictor import Options, Predictor  # noqa: PLC0415 -- as above

    observed, measured = Rows.load(folder / OBSERVED), Rows.load(*sorted(shipped.glob("*.parquet")))
    held = max(1, round(_HELD * len(observed)))
    past, last = observed[:-held], observed[-held:]
    current = load_trained(folder, shipped=shipped)
    options = current.predictor.inputs.options if current and isinstance(current.predictor, Predictor) else Options()
    vectors = _vectors((folder, shipped), [*measured, *observed]) if options.embeddings else None
    fresh = Predictor.fit([*measured, *past], embeddings=vectors, options=options)
    if current is not None and error_of(fresh, past, last) > error_of(current.predictor, past, last):
        return False
    if vectors is not None:
        vectors.save(folder / VECTORS)
    save(fresh, folder / PREDICTOR)
    return True


def error_of(predictor: Predicts, past: Sequence[Row], last: Sequence[Row]) -> float:
    """Return the mean error of log seconds over `last`, for a node that learned its factors from `past`."""
    corrections = Corrections()
    for row in past:
        corrections.add(row.candidate.name, _seconds(predictor, row), row.outcome.seconds)
    off = [
        abs(math.log(row.outcome.seconds / (_seconds(predictor, row) * corrections.factor(row.candidate.name))))
        for row in last
    ]
    return sum(off) / len(off)


def _seconds(predictor: Predicts, row: Row) -> float:
    return predictor.predict(row.task, row.model, row.hardware, [row.candidate])[0].seconds


def _vectors(folders: Sequence[Path], rows: Sequence[Row]) -> Embeddings | None:
    """Return the vectors of all that is said of these rows, by the encoder that there is; None where there is none."""
    from plait_node.selector.describe import (  # noqa: PLC0415 -- as above
        describe_candidate,
        describe_hardware,
        describe_model,
        describe_task,
    )
    from plait_node.selector.embeddings import Embeddings, text_encoder  # noqa: PLC0415 -- as above

    known = [path for folder in folders if (path := folder / VECTORS).exists()]
    if not known:
        return None
    made = Embeddings.load(known[0], make=text_encoder)
    made.keep(describe_task(row.task) for row in rows)
    made.keep(describe_model(row.model) for row in rows)
    made.keep(describe_hardware(row.hardware) for row in rows)
    made.keep(describe_candidate(row.candidate) for row in rows)
    return made


def main() -> int:
    """Fit; 0: a new predictor lies in the folder, 3: it was no better."""
    parser = argparse.ArgumentParser(prog="python -m plait_node.selector.training", description=__doc__)
    parser.add_argument("folder", type=Path, help="where a worker keeps what it learned")
    parser.add_argument("shipped", type=Path, help="where the shipped history and predictor are")
    given = parser.parse_args()
    os.nice(19)
    return 0 if fit(given.folder, shipped=given.shipped) else _NO_BETTER


if __name__ == "__main__":
    sys.exit(main())
