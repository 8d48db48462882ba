"""Commit to work: rows into leaves, windows into signatures."""

from __future__ import annotations

from plait_node.commit.errors import CommitError, DisagreementError, LeafError, RowOrderError
from plait_node.commit.rows import RowHashes, hash_rows, hash_tail_rows
from plait_node.commit.stage_committer import SignLeaf, StageCommitter, WindowRoots

__all__ = [
    "CommitError",
    "DisagreementError",
    "LeafError",
    "RowHashes",
    "RowOrderError",
    "SignLeaf",
    "StageCommitter",
    "WindowRoots",
    "hash_rows",
    "hash_tail_rows",
]
