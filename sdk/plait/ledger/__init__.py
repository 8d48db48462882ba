"""Keep what anyone who signs money needs: journal, guard, keys, channel books, outbox."""

from __future__ import annotations

from plait.ledger.database import Database, statements
from plait.ledger.debts import Debt, DebtBook
from plait.ledger.errors import (
    ClaimedAheadError,
    ClosedError,
    ConflictError,
    DepositTooSmallError,
    EndedError,
    ExitingError,
    ForeignJournalError,
    JournalError,
    JournalFullError,
    KeyFileError,
    LeafError,
    LedgerError,
    LowerAmountError,
    NewerJournalError,
    PaymentError,
    ReceiptsError,
    RecoveryError,
    StaleVoucherError,
    UnknownChannelError,
    WrongPartyError,
)
from plait.ledger.guard import NotSafe, Safe, SigningGuard
from plait.ledger.journal import Journal
from plait.ledger.keys import load_key, new_key_file, save_key
from plait.ledger.outbox import Intent, Outbox, Outcome
from plait.ledger.payee import Accepted, ChannelState, Draft, PayeeBook, Round
from plait.ledger.payer import PaidJob, PayerBook, PayerChannel
from plait.ledger.shared import SharedBook
from plait.ledger.store import Paid

__all__ = [
    "Accepted",
    "ChannelState",
    "ClaimedAheadError",
    "ClosedError",
    "ConflictError",
    "Database",
    "Debt",
    "DebtBook",
    "DepositTooSmallError",
    "Draft",
    "EndedError",
    "ExitingError",
    "ForeignJournalError",
    "Intent",
    "Journal",
    "JournalError",
    "JournalFullError",
    "KeyFileError",
    "LeafError",
    "LedgerError",
    "LowerAmountError",
    "NewerJournalError",
    "NotSafe",
    "Outbox",
    "Outcome",
    "Paid",
    "PaidJob",
    "PayeeBook",
    "PayerBook",
    "PayerChannel",
    "PaymentError",
    "ReceiptsError",
    "RecoveryError",
    "Round",
    "Safe",
    "SharedBook",
    "SigningGuard",
    "StaleVoucherError",
    "UnknownChannelError",
    "WrongPartyError",
    "load_key",
    "new_key_file",
    "save_key",
    "statements",
]
