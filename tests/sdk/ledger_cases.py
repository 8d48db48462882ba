"""Two ends of one channel for the ledger's tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from plait.ledger import Accepted, Journal, PayeeBook, PayerBook, PayerChannel
from plait.protocol.codec import Payment
from plait.protocol.ids import Address, Hash, keccak
from plait.protocol.receipts import ABORTED, RECEIPT, ReceiptLeaf
from plait.protocol.typed import Domain, Key

DOMAIN = Domain(chain_id=31_337, channels=Address(bytes(19) + b"\x07"))
PAYEE = Address(bytes(19) + b"\x01")
SIGNER = Key.from_bytes(bytes(31) + b"\x05")
NOW = 1_800_000_000.0
DEPOSIT = 1_000_000


def request(number: int) -> Hash:
    """Return a request's digest."""
    return keccak(b"request", number.to_bytes(4, "big"))


def receipt_leaf(number: int, amount: int, windows: int = 3) -> ReceiptLeaf:
    """Return the leaf of a request that ended with a receipt."""
    digest = keccak(b"receipt", number.to_bytes(4, "big"))
    return ReceiptLeaf(kind=RECEIPT, hash=digest, hop_amount=amount, windows_paid=windows)


def aborted_leaf(number: int, amount: int) -> ReceiptLeaf:
    """Return the leaf of a request that died."""
    return ReceiptLeaf(kind=ABORTED, hash=request(number), hop_amount=amount, windows_paid=0)


@dataclass(slots=True, kw_only=True)
class Pair:
    """A payer's and a payee's book, each over a journal of its own."""

    folder: Path
    payer_journal: Journal
    payee_journal: Journal

    @classmethod
    def make(cls, folder: Path) -> Pair:
        return cls(
            folder=folder,
            payer_journal=Journal(folder / "payer.db"),
            payee_journal=Journal(folder / "payee.db"),
        )

    @property
    def payer(self) -> PayerBook:
        return PayerBook(self.payer_journal, DOMAIN, SIGNER, clock=lambda: NOW)

    @property
    def payee(self) -> PayeeBook:
        return PayeeBook(self.payee_journal, DOMAIN, PAYEE)

    @property
    def channel(self) -> PayerChannel:
        return self.payer.channel(PAYEE)

    def accept(
        self,
        payment: Payment,
        *,
        deposit: int = DEPOSIT,
        claimed: int = 0,
        exit_at: int = 0,
        now: float = NOW,
    ) -> Accepted:
        return self.payee.accept(payment, deposit=deposit, claimed=claimed, exit_at=exit_at, now=now)

    def reopen(self) -> None:
        """Lose all memory, as a restart does."""
        self.close()
        self.payer_journal = Journal(self.folder / "payer.db")
        self.payee_journal = Journal(self.folder / "payee.db")

    def close(self) -> None:
        self.payer_journal.close()
        self.payee_journal.close()
