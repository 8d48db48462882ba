"""One target under coverage guidance: `python -m tests.fuzz.guided TARGET RUNS SEED`; ends with 77 at a finding."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import atheris

with atheris.instrument_imports(include=["plait", "plait_node"]):
    from tests.fuzz.targets import every


def main(name: str, runs: str, seed: str) -> None:
    """Run until all cases are through or one fails; never return."""
    logging.disable(logging.CRITICAL)
    target = next(target for target in every() if target.name == name)

    def one(data: bytes) -> None:
        try:
            target.run(data)
        except Exception:
            sys.stdout.write(f"again: python -m tests.fuzz --target {name} --bytes {data.hex() or '-'}\n")
            sys.stdout.flush()
            raise

    with TemporaryDirectory(ignore_cleanup_errors=True) as corpus:
        for number, known in enumerate(target.seeds()):
            Path(corpus, str(number)).write_bytes(known)
        options = [f"-runs={runs}", f"-seed={seed}", "-max_len=4096", "-rss_limit_mb=2048", "-timeout=20"]
        atheris.Setup(["fuzz", *options, "-artifact_prefix=build/fuzz/", corpus], one)
        atheris.Fuzz()


main(*sys.argv[1:])
