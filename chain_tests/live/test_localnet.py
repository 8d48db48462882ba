"""A local network that is interrupted while it starts leaves nothing behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.timeout(600)

_UP_S = 300.0
_DOWN_S = 60.0


def of_network(folder: Path) -> list[psutil.Process]:
    """Return the running processes that name the network's folder or were started under it."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter(["cmdline", "status"]):
        named = str(folder) in " ".join(process.info["cmdline"] or [])
        if named and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_network_interrupted_while_it_starts_ends_every_process(tmp_path: Path, number: signal.Signals) -> None:
    folder = tmp_path / "network"
    command = [sys.executable, "-m", "plait_node.localnet", "serve", "--folder", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as network:
        assert network.stdout is not None
        deadline = time.monotonic() + _UP_S
        line = ""
        while not line.startswith("contracts") and time.monotonic() < deadline:
            line = network.stdout.readline()
        assert line.startswith("contracts")
        children = psutil.Process(network.pid).children(recursive=True)
        assert len(children) >= 2  # the chain and the broker

        network.send_signal(number)
        network.wait(_DOWN_S)

    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    assert of_network(folder) == []


def test_network_in_a_folder_of_something_else_is_refused_and_nothing_deleted(tmp_path: Path) -> None:
    treasure = tmp_path / "thesis.tex"
    treasure.write_text("years of work")

    command = [sys.executable, "-m", "plait_node.localnet", "serve", "--folder", str(tmp_path)]
    told = subprocess.run(command, capture_output=True, text=True, timeout=_UP_S, check=False)

    assert told.returncode == 1
    assert "name a new folder" in told.stderr
    assert treasure.read_text() == "years of work"
