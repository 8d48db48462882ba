"""Run the tests that failed once more, alone. What fails again is broken; what passes now is named, to be looked into.

Many tests here run real processes against real deadlines, two test processes side by side, and one of them fails now
and then beside the others. Its cause may be the test's or the product's (docs/decisions/0014), hence the names. More
than `MOST` failures are no accident and get no second go.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

MOST: Final = 3
FAILED: Final = Path(".pytest_cache/v/cache/lastfailed")
AGAIN: Final = ("-m", "pytest", "-n", "0", "-p", "no:cacheprovider")


def failed() -> list[str]:
    """Return the tests that the last run's failures name."""
    try:
        return sorted(json.loads(FAILED.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return []


def main() -> int:
    """Return 0 when no more than `MOST` tests failed and all of them pass now."""
    names = failed()
    if not names:
        print("tests ended badly and none of them failed: see above", flush=True)
        return 1
    if len(names) > MOST:
        print(f"{len(names)} tests failed: too many for a second go", flush=True)
        return 1
    print(f"\nsecond go, alone: {len(names)} of the tests failed beside the others", flush=True)
    result = subprocess.run([sys.executable, *AGAIN, *names], check=False).returncode
    if result == 0:
        print("\n".join(f"PASSED ALONE ONLY, look into it: {name}" for name in names), flush=True)
        result = subprocess.run([sys.executable, "-m", "coverage", "report", "--format=total"], check=False).returncode
    return result


if __name__ == "__main__":
    sys.exit(main())
