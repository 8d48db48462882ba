"""Ports of loopback for servers that are started here, each of them given to one process of this machine only.

A port is named before its server binds it, and again when a server that was killed comes back. Looking for one that
nobody holds is not enough: two local networks that start at the same time would find the same. So each process marks
what it takes in one file of the user, by a lock on the byte of that number, which ends with the process.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
import tempfile
from pathlib import Path
from typing import Final

from plait_node.errors import StartError

__all__ = ["claim", "free_port"]

# Below those that the system hands out by itself: none of them goes to a client while its server is away.
_PORTS: Final = range(20_000, 32_000)
_TRIES: Final = 2_000


class _Marks:
    """The ports that this process has taken, and the file in which others see it."""

    def __init__(self) -> None:
        self._mine: set[int] = set()
        self._descriptor: int | None = None

    def take(self, port: int) -> bool:
        """Mark a port; tell whether nobody had."""
        if port in self._mine:
            return False
        try:
            fcntl.lockf(self._file(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
        except (BlockingIOError, PermissionError):  # POSIX allows either
            return False
        self._mine.add(port)
        return True

    def _file(self) -> int:
        if self._descriptor is None:
            file = Path(tempfile.gettempdir()) / f"plait-ports-{os.getuid()}"
            # It stays open: to close it anywhere in this process would end all its locks.
            self._descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        return self._descriptor


_MARKS: Final = _Marks()


def claim(port: int) -> bool:
    """Take a port of loopback for this process; tell whether nobody had it, neither marked nor bound."""
    return _unbound(port) and _MARKS.take(port)


def free_port() -> int:
    """Take and return a port that nobody has, for TCP and for UDP; raise `StartError` where none is found."""
    for _ in range(_TRIES):
        port = _PORTS.start + secrets.randbelow(len(_PORTS))
        if claim(port):
            return port
    raise StartError(f"no free port of loopback between {_PORTS.start} and {_PORTS.stop}")


def _unbound(port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True
