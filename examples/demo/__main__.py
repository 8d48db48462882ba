"""The whole thread on this machine: ask, stream, check, pay, settle, lose a node, go on, audit.

Prints what happens as it happens, writes build/demo/summary.json, and ends with `demo: OK` or `demo: FAILED: why`.
Every process it starts has ended when it ends, on Ctrl-C too.
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
import time
from pathlib import Path

from network import NetworkError, network
from story import Story, StoryError

from plait.errors import PlaitError

_FOLDER = Path("build/demo").resolve()


def _interrupted(number: int, frame: object) -> None:
    del number, frame
    raise KeyboardInterrupt


def main() -> int:
    """Tell the story; return the exit status."""
    signal.signal(signal.SIGTERM, _interrupted)
    shutil.rmtree(_FOLDER, ignore_errors=True)
    _FOLDER.mkdir(parents=True)
    began = time.monotonic()
    try:
        with network(_FOLDER / "network", lambda text: print(f"    {text}", flush=True)) as facts:
            story = Story(facts, home=_FOLDER / "payer", up_s=time.monotonic() - began)
            summary = story.tell()
    except KeyboardInterrupt:
        print("demo: FAILED: interrupted")
        return 130
    except (PlaitError, StoryError, NetworkError, OSError) as error:
        print(f"demo: FAILED: {error}")
        return 1
    summary["seconds"] = round(time.monotonic() - began, 1)
    (_FOLDER / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    print(f"summary: {_FOLDER / 'summary.json'}  ({summary['seconds']} s)")
    print("demo: OK")
    return 0


if __name__ == "__main__":
    sys.exit(main())
