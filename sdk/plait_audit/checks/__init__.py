"""Each check compares what replay rebuilt with something independent of it. They never raise; they find."""

from __future__ import annotations

from plait_audit.checks.backing import tokens_back_what_is_owed
from plait_audit.checks.storage import storage_equals_replay

__all__ = ["CHECKS", "storage_equals_replay", "tokens_back_what_is_owed"]

CHECKS = (tokens_back_what_is_owed, storage_equals_replay)
