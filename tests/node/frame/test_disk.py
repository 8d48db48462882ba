"""A node's disk: below its limit nothing new is taken, and the log says so once."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from plait_node.disk import Disk
from plait_node.errors import DiskFullError


def test_disk_below_its_limit_is_full_until_there_is_room(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    free = [100]
    disk = Disk(tmp_path, least=50, free=lambda _: free[0])
    disk.check()
    free[0] = 49
    for _ in range(3):
        with pytest.raises(DiskFullError) as caught:
            disk.check()
    assert (caught.value.code, caught.value.retry) == ("busy", True)
    free[0] = 50
    disk.check()
    said = [record.getMessage().split(" folder=")[0] for record in caplog.records]
    assert said == ["disk full, no new jobs", "disk has room"]


def test_disk_is_that_of_its_folder(tmp_path: Path) -> None:
    assert not Disk(tmp_path, least=1).full
    assert Disk(tmp_path, least=1 << 60).full
