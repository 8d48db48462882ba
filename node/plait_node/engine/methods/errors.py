"""What the methods refuse.

EngineError (engine/errors.py)
└── MethodRefusedError      a method that does not exist, or that cannot be used here or together; `reason` says why
"""

from __future__ import annotations

from plait_node.engine.errors import EngineError

__all__ = ["MethodRefusedError"]


class MethodRefusedError(EngineError):
    """The choice of methods cannot run."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"method {name!r}: {reason}; leave it out or choose another")
        self.name = name
        self.reason = reason
