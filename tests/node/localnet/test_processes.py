"""Children of a local network: each ends when it is told to, and with its parent."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from plait_node.errors import LocalnetError
from plait_node.localnet.processes import Children, find_program, until_up

SLEEPER = [sys.executable, "-c", "import time; print('here', flush=True); time.sleep(60)"]
STUBBORN = [sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)"]
PARENT = """
import sys, time
from pathlib import Path
from plait_node.localnet.processes import Children
child = Children(Path(sys.argv[1])).start("child", [sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
"""


def gone(pid: int, *, within_s: float = 60.0) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        stat = Path(f"/proc/{pid}/stat")
        if stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


async def test_children_stop_all_ends_every_one(tmp_path: Path) -> None:
    children = Children(tmp_path)
    started = [children.start(name, SLEEPER) for name in ("one", "two")]

    await children.stop_all()

    assert not any(child.alive for child in started)


async def test_children_that_ignore_the_signal_are_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plait_node.localnet.processes._STOP_S", 0.5)
    children = Children(tmp_path)
    stubborn = children.start("stubborn", STUBBORN)
    await asyncio.sleep(0.5)

    await children.stop_all()

    assert not stubborn.alive


async def test_until_up_child_that_dies_shows_its_log(tmp_path: Path) -> None:
    child = Children(tmp_path).start("dead", [sys.executable, "-c", "print('the reason'); raise SystemExit(3)"])

    async def never() -> bool:
        return False

    with pytest.raises(LocalnetError, match=r"ended with 3(.|\n)*the reason"):
        await until_up(child, never, deadline_s=20)


async def test_until_up_child_that_takes_too_long_is_an_error(tmp_path: Path) -> None:
    children = Children(tmp_path)
    child = children.start("slow", SLEEPER)

    async def never() -> bool:
        return False

    with pytest.raises(LocalnetError, match="was not up after"):
        await until_up(child, never, deadline_s=0.3)
    await children.stop_all()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child when its parent is killed")
def test_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())

    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()

    assert gone(child)


def test_find_program_missing_says_what_to_do() -> None:
    with pytest.raises(LocalnetError, match="make setup"):
        find_program("no-such-program-of-plait")
