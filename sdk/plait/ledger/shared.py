"""A payee's book whose channels have a log outside: a payment is logged there before it is journalled here."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from plait.ledger.account import Account
from plait.ledger.errors import JournalError
from plait.ledger.payee import Accepted, Draft, PayeeBook
from plait.ledger.store import Entry
from plait.protocol.codec import Payment
from plait.protocol.ids import Hash, to_hex
from plait.protocol.messages import Pay, Voucher
from plait.protocol.receipts import ReceiptLeaf
from plait.protocol.typed import Signed, struct_hash

_ALL = 1 << 62


class SharedBook(PayeeBook):
    """Keeps a prefix of each channel's log, and remembers in the same transaction how far it has come."""

    def draft(self, payment: Payment, *, deposit: int, claimed: int, exit_at: int, now: float) -> Draft | Accepted:
        """Check a payment as `accept` does and journal nothing; return what it adds once it is kept.

        A payment that was accepted before comes back as accepted. Between a draft and `keep` nothing else may be
        accepted on its channel; one that is not kept is forgotten.
        """
        account = self._account_of(payment)
        with account.change():
            return self._draft(account, payment, deposit=deposit, claimed=claimed, exit_at=exit_at, now=now)

    def keep(self, draft: Draft, sequence: int) -> Accepted:
        """Journal a draft that is in the log now, at `sequence`."""
        with draft.account.change():
            accepted = self._keep(draft)
            self.set_logged(draft.account.channel, sequence)
        return accepted

    def replay(self, payment: Payment, *, at: int, sequence: int) -> bool:
        """Take over from the log what was accepted elsewhere at `at`; return False when it is here already.

        Raise `PaymentError` when the log does not go on where this journal ends.
        """
        account = self._account_of(payment)
        with account.change():
            new = account.store.entry_of(struct_hash(payment.pay.message)) is None
            if new:
                step, signature = self._late(account, payment) or self._step(account, payment, judged=True)
                draft = Draft(account=account, step=step, pay=payment.pay, voucher_signature=signature, at=at)
                self._keep(draft)
            self.set_logged(account.channel, sequence)
        return new

    @contextmanager
    def together(self) -> Generator[None]:
        """Journal all that the block replays in one transaction."""
        with self._journal.write():
            yield

    def logged(self, channel: Hash) -> int:
        """Return how far a channel's log was taken into this journal, 0 for not at all."""
        row = self._journal.one("SELECT sequence FROM logged WHERE channel = ?", channel)
        return row[0] if row else 0

    def set_logged(self, channel: Hash, sequence: int) -> None:
        """Remember how far a channel's log was taken into this journal."""
        with self._journal.write():
            self._journal.run("INSERT OR REPLACE INTO logged VALUES (?, ?)", channel, sequence)

    def known(self, channel: Hash) -> bool:
        """Say whether anything was ever paid on a channel, as far as this journal knows."""
        query = "SELECT 1 FROM channels WHERE role = 'payee' AND channel = ?"
        return self._journal.one(query, channel) is not None

    def ended(self, channel: Hash, request: Hash) -> ReceiptLeaf | None:
        """Return the leaf with which a payer ended a request on a channel."""
        ended = self._by_id(channel).store.ended(request) if self.known(channel) else None
        return ended.leaf if ended else None

    def payments(self, channel: Hash) -> list[tuple[Payment, int]]:
        """Return a channel's payments, oldest first, as they came, and when each was accepted."""
        if not self.known(channel):
            return []
        account = self._by_id(channel)
        entries = account.store.entries_after(0)
        return [(_payment(account, entries, place), entry.at) for place, entry in enumerate(entries)]

    def running(self, channel: Hash, since: int) -> list[Hash]:
        """Return the requests of a channel that were paid for after a time, in Unix seconds, and have not ended."""
        if not self.known(channel):
            return []
        return [entry.request for entry in self._by_id(channel).store.running(_ALL) if entry.at >= since]


def _payment(account: Account, entries: list[Entry], place: int) -> Payment:
    """Return the payment that made an entry."""
    entry = entries[place]
    # A Pay that credit covered came late, under the voucher of an earlier state.
    for under in (entries[each] for each in range(place, -1, -1)):
        voucher: Voucher = account.voucher(under)
        pay = Pay(request=entry.request, voucher=struct_hash(voucher), amount=entry.amount, to=entry.to)
        if struct_hash(pay) == entry.pay:
            return Payment(
                voucher=Signed(message=voucher, signature=under.voucher_signature),
                pay=Signed(message=pay, signature=entry.pay_signature),
                ended=account.store.leaves_of(entry.seq),
                consistency=entry.consistency,
            )
    raise JournalError(f"a payment on channel {to_hex(account.channel)} is under no voucher of this journal")
