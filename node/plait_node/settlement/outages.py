"""What settlement waits for and does not fail at: a chain that is away, a disk that is full."""

from __future__ import annotations

from plait.chain import ChainError
from plait.ledger import JournalFullError

OUTAGES = (ChainError, JournalFullError)


def outage(error: ChainError | JournalFullError) -> str:
    """Say which of them it is, as the log has it."""
    return "the disk is full" if isinstance(error, JournalFullError) else "the chain failed"
