"""Folders that live as long as a session: models that are written once and read by many tests."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

_made: list[Path] = []


def session_folder() -> Path:
    """Make an empty folder that is cleared away after the session's last test."""
    _made.append(Path(tempfile.mkdtemp(prefix="plait-test-")))
    return _made[-1]


def clear_folders() -> None:
    """Clear all of them away."""
    while _made:
        shutil.rmtree(_made.pop(), ignore_errors=True)
