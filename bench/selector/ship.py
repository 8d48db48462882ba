"""Fit the predictor that comes with the package, on the history that comes with it.

Run it as: python -m bench.selector.ship (`make train-selector`). Without embeddings: a worker loads no encoder, and
what live jobs say of themselves is in no shipped table; `make bench-selector` measures what leaving them out costs.
"""

from __future__ import annotations

from plait_node.selector.artefact import save
from plait_node.selector.predictor import Options, Predictor
from plait_node.selector.rows import Rows
from plait_node.selector.training import PREDICTOR, SHIPPED, error_of

__all__: list[str] = []


def main() -> None:
    files = sorted(SHIPPED.glob("*.parquet"))
    rows = Rows.load(*files)
    made = Predictor.fit(rows, options=Options(embeddings=False))
    metrics = {"training_error": error_of(made, [], rows), "rows": float(len(rows))}
    digest = save(made, SHIPPED / PREDICTOR, metrics=metrics)
    print(f"{len(rows)} rows of {', '.join(path.name for path in files)}: {digest}")


if __name__ == "__main__":
    main()
