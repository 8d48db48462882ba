"""Compare the selector with its baselines.

Run it as: python -m bench.selector [--history FILE ...] [--out DIR] [--seeds N] (`make bench-selector`).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from time import perf_counter

from bench.selector.cells import cells_of
from bench.selector.report import write
from bench.selector.study import study
from bench.selector.texts import ENCODER, OTHER_ENCODER, embedded

from plait_node.selector.errors import HistoryError
from plait_node.selector.rows import Rows

_SHIPPED = Path(__file__).resolve().parents[2] / "node/plait_node/selector/history"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.selector", description=__doc__)
    parser.add_argument(
        "--history", type=Path, nargs="+", help="Parquet files of rows (default: those that come with the package)"
    )
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help="folder (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="repeats of every split (default: %(default)s)")
    parser.add_argument("--without-parts", action="store_true", help="no ablation: two thirds of the time")
    given = parser.parse_args()
    files = given.history or sorted(_SHIPPED.glob("*.parquet"))
    if not files:
        sys.exit(f"there is no history in {_SHIPPED}; measure one with plait node bench-methods, or give --history")
    began = perf_counter()
    try:
        rows = Rows.load(*files)
        cells, parts = cells_of(rows), not given.without_parts
        other = embedded(cells, OTHER_ENCODER) if parts else None
        made = study(rows, embeddings=embedded(cells, ENCODER), other=other, seeds=given.seeds, parts=parts)
    except HistoryError as error:
        sys.exit(str(error))
    made.found["history"] = [path.name for path in files]
    made.found["took_s"] = round(perf_counter() - began, 1)
    write(made, given.out)
    for name, target in made.found["targets"].items():
        print(f"{'met   ' if target['met'] else 'MISSED'} {name}: {target['figure']:.4g}, wanted {target['target']}")
    print(f"report in {given.out / 'selector.md'}")


if __name__ == "__main__":
    main()
