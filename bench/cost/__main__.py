"""What a million tokens cost, from the measured history, the gas table and a table of prices.

Run it as: python -m bench.cost [--history FILE ...] [--predictor DIR] [--out DIR] (`make bench-cost`). Nothing is
measured: seconds are the history's, gas and the share of hashes those of bench/results; `bench/cost/prices.py` has
every price.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

from bench.cost.report import write
from bench.cost.study import MODES, study
from bench.selector.cells import cells_of

from plait_node.selector.errors import HistoryError
from plait_node.selector.rows import Rows
from plait_node.selector.training import SHIPPED, load_trained

_RESULTS: Final = Path(__file__).resolve().parents[1] / "results"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.cost", description=__doc__)
    parser.add_argument(
        "--history", type=Path, nargs="+", help="Parquet files of rows (default: those that come with the package)"
    )
    parser.add_argument("--predictor", type=Path, default=SHIPPED, help="folder of a trained one (default: shipped)")
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help="folder (default: %(default)s)")
    given = parser.parse_args()
    files = given.history or sorted(SHIPPED.glob("*.parquet"))
    if not files:
        sys.exit(f"there is no history in {SHIPPED}; measure one with plait node bench-methods, or give --history")
    try:
        rows = Rows.load(*files)
    except HistoryError as error:
        sys.exit(str(error))
    trained = load_trained(given.predictor)
    predictor = trained.predictor if trained else None
    gas = cast("Mapping[str, int]", _result("gas.json")["gas"])
    found = study(cells_of(rows), predictor=predictor, hash_share=_hash_share(_result("engine.json")), gas=gas)
    found |= {"history": [path.name for path in files], "rows": len(rows)}
    write(found, given.out)
    for name, modes in found["settings"]["exact"].items():
        told = ", ".join(f"{mode} {modes[mode]['total_l2']:.3g}" for mode in MODES if modes[mode])
        print(f"{name:<15} USD a million answer tokens, exact, on a rollup: {told}")
    print(f"selector: {found['selector']}\nreport in {given.out / 'cost.md'}")


def _result(name: str) -> dict[str, Any]:
    """Return what a bench of this repository found, as committed."""
    return json.loads((_RESULTS / name).read_text(encoding="utf-8"))


def _hash_share(engine: Mapping[str, Any]) -> float:
    """Return the largest share of a run's time that hashes and leaves took for any model."""
    shares = [each["hashes_and_leaves_share"] for each in engine.values() if _measured(each)]
    return float(max(shares))


def _measured(each: object) -> bool:
    return isinstance(each, dict) and "hashes_and_leaves_share" in each


if __name__ == "__main__":
    main()
