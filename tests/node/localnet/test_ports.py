"""Ports of loopback: each is one process's alone, from when it is chosen until that process ends."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager

import pytest

from plait_node import ports
from plait_node.errors import StartError
from plait_node.ports import claim, free_port

CHOOSER = """
import sys
from plait_node import ports
ports._PORTS = range(int(sys.argv[1]), int(sys.argv[2]))
print(*sorted(ports.free_port() for _ in range(int(sys.argv[3]))), flush=True)
sys.stdin.read()
"""


@contextmanager
def chooser(among: range, count: int) -> Generator[list[int]]:
    """Run another process that takes ports, and ends with the block."""
    command = [sys.executable, "-c", CHOOSER, str(among.start), str(among.stop), str(count)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield [int(port) for port in process.stdout.readline().split()]


def some_ports(count: int) -> range:
    """Return ports beside each other that nobody has bound."""
    while True:
        first = free_port()
        if all(ports._unbound(first + at) for at in range(1, count + 1)):
            return range(first + 1, first + 1 + count)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_free_port_can_be_bound(kind: socket.SocketKind) -> None:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", free_port()))


def test_ports_of_two_processes_that_choose_at_once_are_never_the_same() -> None:
    among = some_ports(8)
    with chooser(among, 4) as one, chooser(among, 4) as other:
        assert sorted([*one, *other]) == list(among)
        assert not any(claim(port) for port in among)
    assert all(claim(port) for port in among)  # both have ended


def test_port_is_given_out_once_and_none_that_is_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    (port, taken) = some_ports(2)
    monkeypatch.setattr(ports, "_PORTS", range(port, taken + 1))
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", taken))
        assert free_port() == port
        with pytest.raises(StartError, match="no free port"):
            free_port()
