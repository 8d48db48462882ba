"""Each check compares what replay rebuilt with something independent of it. They never raise; they find."""

from __future__ import annotations

from plait_audit.checks.backing import tokens_back_what_is_owed
from plait_audit.checks.names import requests_are_named_by_their_digest
from plait_audit.checks.storage import storage_equals_replay

__all__ = ["CHECKS", "requests_are_named_by_their_digest", "storage_equals_replay", "tokens_back_what_is_owed"]

CHECKS = (tokens_back_what_is_owed, requests_are_named_by_their_digest, storage_equals_replay)
