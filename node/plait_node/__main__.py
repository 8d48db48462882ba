"""`python -m plait_node`: the same commands as `plait node`."""

from __future__ import annotations

from plait_node.cli import app

if __name__ == "__main__":
    app()
