"""The local network as a child process: started, watched, and ended whatever happens."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue

_UP_S = 400.0
_DOWN_S = 20.0


class NetworkError(Exception):
    """The local network did not come up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What `network.json` says."""

    rpc: str
    deployment: Path
    model: str
    payer_key: str
    processes: tuple[dict[str, object], ...]

    def process(self, name: str) -> dict[str, object]:
        """Return one process' entry."""
        return next(each for each in self.processes if each["name"] == name)


@contextlib.contextmanager
def network(folder: Path, say: Callable[[str], None]) -> Iterator[Facts]:
    """Run a local network for as long as the block lasts."""
    command = [sys.executable, "-m", "plait_node.localnet", "serve", "--folder", str(folder)]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        yield _facts(_until_up(process, say))
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_DOWN_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def _until_up(process: subprocess.Popen[bytes], say: Callable[[str], None]) -> Path:
    lines: Queue[str] = Queue()
    threading.Thread(target=_pump, args=(process, lines), daemon=True).start()
    deadline, last = time.monotonic() + _UP_S, ""
    while time.monotonic() < deadline:
        with contextlib.suppress(Empty):
            last = lines.get(timeout=0.2)
            if last.startswith("up "):
                return Path(last.removeprefix("up ").strip())
            say(last)
        if process.poll() is not None and lines.empty():
            raise NetworkError(f"the local network ended with {process.returncode}: {last}")
    raise NetworkError(f"the local network was not up after {_UP_S:.0f} s; last line: {last}")


def _pump(process: subprocess.Popen[bytes], lines: Queue[str]) -> None:
    for line in process.stdout or ():
        lines.put(line.decode(errors="replace").rstrip())


def _facts(path: Path) -> Facts:
    raw = json.loads(path.read_text(encoding="utf-8"))
    return Facts(
        rpc=raw["rpc"],
        deployment=Path(raw["deployment"]),
        model=raw["model"],
        payer_key=raw["payerKey"],
        processes=tuple(raw["processes"]),
    )
