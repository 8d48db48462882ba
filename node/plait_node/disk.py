"""The disk under a node's folder: nothing new is taken before it is full, so that what runs can still be journalled."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from plait_node.errors import DiskFullError

__all__ = ["Disk"]

log = logging.getLogger(__name__)


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder).free


class Disk:
    """Tells whether there is room for the journals of more jobs."""

    def __init__(self, folder: Path, *, least: int, free: Callable[[Path], int] = _free) -> None:
        """Keep `least` bytes free on the disk of `folder`."""
        self._folder, self._least, self._free = folder, least, free
        self._full = False

    @property
    def full(self) -> bool:
        """Tell whether less is free than is to be; both changes are logged."""
        free = self._free(self._folder)
        if self._full != (free < self._least):
            self._full = not self._full
            level, what = (logging.ERROR, "disk full, no new jobs") if self._full else (logging.INFO, "disk has room")
            log.log(level, "%s folder=%s free_mib=%d", what, self._folder, free >> 20)
        return self._full

    def check(self) -> None:
        """Raise `DiskFullError` where nothing new is to be taken."""
        if self.full:
            raise DiskFullError("this node has no room on its disk for more jobs; try again later, or another node")
