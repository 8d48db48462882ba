"""One process a folder; `plait node drain` has it finish its jobs, and tells what came of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from plait_node.cli import app
from plait_node.errors import ConfigError, DrainError
from plait_node.running import Word, drain, held, running

NODE = """
import sys, time
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

from plait_node import app
from plait_node.app.drain import Drain
from plait_node.app.metrics import NodeMetrics
from plait_node.home import Home

folder, job_s, drain_s, start_s = Path(sys.argv[1]), *map(float, sys.argv[2:])

@asynccontextmanager
async def opened(config):
    # What a node stands on needs a chain; what is tried here is all around it.
    import asyncio
    await asyncio.sleep(start_s)
    drain, until = Drain(), []
    async def close():
        until.append(time.monotonic() + job_s)
    drain.add(close=close, busy=lambda: time.monotonic() < until[0])
    yield SimpleNamespace(config=config, metrics=NodeMetrics(), home=Home(folder), drain=drain)

app.opened = opened
app.serve(SimpleNamespace(home=folder, roles=(), owner=bytes(20), drain_s=drain_s, give=None))
"""

HOLDER = """
import sys, time
from pathlib import Path
from plait_node.running import held

with held(Path(sys.argv[1]) / "node.lock") as mark:
    mark.say("serving")
    time.sleep(600)
"""


@contextmanager
def node(folder: Path, *, job_s: float = 0.0, drain_s: float = 300.0, start_s: float = 0.0) -> Generator[Path]:
    """Run a node with one job that takes a while; yield its lock."""
    with process(folder, NODE, job_s, drain_s, start_s) as lock:
        yield lock


@contextmanager
def process(folder: Path, script: str, *numbers: float) -> Generator[Path]:
    command = [sys.executable, "-c", script, str(folder), *map(str, numbers)]
    started = subprocess.Popen(command)
    try:
        until(lambda: running(folder / "node.lock") is not None)
        yield folder / "node.lock"
    finally:
        started.kill()
        started.wait()


def until(condition: Callable[[], bool], *, deadline_s: float = 60.0) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def state(lock: Path) -> str:
    word = running(lock)
    return word.state if word is not None else "none"


def test_drain_waits_for_the_jobs_of_a_node_even_of_one_that_starts(tmp_path: Path) -> None:
    with node(tmp_path, job_s=0.5, start_s=3.0) as lock:
        assert state(lock) == "starting"
        told = CliRunner().invoke(app, ["drain", "--home", str(tmp_path)])

        assert told.exit_code == 0, told.exception
        assert "no jobs left" in told.stdout
        assert running(lock) is None
        assert not (tmp_path / "ready.json").exists()


def test_drain_says_that_jobs_were_left(tmp_path: Path) -> None:
    with node(tmp_path, job_s=300.0, drain_s=0.2):
        told = CliRunner().invoke(app, ["drain", "--home", str(tmp_path)])
    assert "jobs left" in str(told.exception)


def test_drain_that_takes_too_long_goes_on_and_is_not_asked_for_twice(tmp_path: Path) -> None:
    with node(tmp_path, job_s=6.0) as lock:
        until(lambda: state(lock) == "serving")
        with pytest.raises(DrainError, match="draining after 2 s"):
            drain(lock, timeout_s=2)
        assert drain(lock, timeout_s=120.0) == Word(pid=json.loads(lock.read_text())["pid"], state="ended")


def test_drain_of_a_node_that_a_second_signal_ends_says_so(tmp_path: Path) -> None:
    with node(tmp_path, job_s=300.0) as lock:
        until(lambda: state(lock) == "serving")
        pid = json.loads(lock.read_text())["pid"]

        def impatient() -> None:
            until(lambda: state(lock) == "draining")
            os.kill(pid, signal.SIGTERM)

        other = threading.Thread(target=impatient)
        other.start()
        told = CliRunner().invoke(app, ["drain", "--home", str(tmp_path)])
        other.join()
        assert "ended at once" in str(told.exception)


def test_drain_without_a_node_or_without_saying_which(tmp_path: Path) -> None:
    assert "say which node" in str(CliRunner().invoke(app, ["drain"]).exception)
    told = CliRunner().invoke(app, ["drain", "--home", str(tmp_path)])
    assert told.exit_code != 0
    assert "no node runs" in str(told.exception)


def test_drain_sends_nothing_to_a_process_that_only_has_the_number(tmp_path: Path) -> None:
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        with process(tmp_path, HOLDER) as lock:
            until(lambda: state(lock) == "serving")
            lock.write_text(Word(pid=bystander.pid, state="serving").model_dump_json())
            with pytest.raises(DrainError, match="is not the node"):
                drain(lock, timeout_s=5.0)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_second_node_of_one_folder_is_refused_and_a_killed_one_leaves_it_free(tmp_path: Path) -> None:
    with process(tmp_path, HOLDER) as lock:
        until(lambda: state(lock) == "serving")
        word = running(lock)
        assert word is not None
        with pytest.raises(ConfigError, match=f"already, process {word.pid}"), held(lock):
            pass
        os.kill(word.pid, signal.SIGKILL)
        until(lambda: running(lock) is None)
        with held(lock) as mark:
            mark.say("serving")
            assert running(lock) == Word(pid=os.getpid(), state="serving")
    with pytest.raises(ConfigError, match="no such folder"), held(tmp_path / "none" / "node.lock"):
        pass
