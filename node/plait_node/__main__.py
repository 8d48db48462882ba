"""`python -m plait_node`: the same commands as `plait node`."""

from __future__ import annotations

from plait.cli.program import EXIT_FAILED, fail
from plait.protocol.errors import PlaitError
from plait_node.cli import app

if __name__ == "__main__":
    try:
        app()
    except PlaitError as error:
        fail(error, EXIT_FAILED)
