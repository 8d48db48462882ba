"""The payer's book: what was promised on each channel, journalled before it is signed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from plait.ledger.account import Account
from plait.ledger.errors import ConflictError, DepositTooSmallError, LeafError, RecoveryError
from plait.ledger.journal import Journal
from plait.ledger.store import Ended, Entry, Paid, Step
from plait.protocol.codec import Payment
from plait.protocol.ids import HASH_ZERO, Address, Hash, Signature
from plait.protocol.messages import Pay, Voucher
from plait.protocol.receipts import ABORTED, ReceiptLeaf
from plait.protocol.tree import tree_root
from plait.protocol.typed import Domain, Key, Signed, struct_hash

_ALL = 1 << 62
_NOT_SIGNED = Signature(bytes(64))  # our own signatures are made again when needed: they are deterministic


@dataclass(frozen=True, slots=True, kw_only=True)
class PaidJob:
    """One request on one channel: what was paid, and the leaf and its place once it ended; amounts in base units."""

    request: Hash
    channel: Hash
    payee: Address
    signer: Address
    paid: int
    to: int
    cumulative: int  # of the channel, after this request's last payment
    at: int  # when that was made, Unix seconds
    leaf: ReceiptLeaf | None
    place: int | None


class PayerChannel:
    """One channel that we pay on."""

    def __init__(self, domain: Domain, key: Key, account: Account, clock: Callable[[], float]) -> None:
        self._domain = domain
        self._key = key
        self.account = account
        self._clock = clock

    @property
    def id(self) -> Hash:
        """Return the channel's id."""
        return self.account.channel

    @property
    def payee(self) -> Address:
        """Return who is paid."""
        return self.account.payee

    @property
    def cumulative(self) -> int:
        """Return what was promised in all, in base units."""
        head = self.account.store.head()
        return head.cumulative if head else 0

    @property
    def credit(self) -> int:
        """Return what was prepaid and not used, in base units."""
        head = self.account.store.head()
        return head.credit if head else 0

    def paid(self, request: Hash) -> Paid:
        """Return what was paid for a request here."""
        return self.account.store.paid(request)

    def running(self) -> list[Hash]:
        """Return the requests that were paid for here and have not ended, oldest payment first."""
        return [entry.request for entry in self.account.store.running(_ALL) if entry.request != HASH_ZERO]

    def pay(self, request: Hash, amount: int, to: int, *, deposit: int | None = None) -> Payment:
        """Promise `amount` base units in all for a request, covering `to` tokens, and return the payment to send.

        Repeating the last payment of a request returns it again. Raise `PaymentError` for less than before, for a
        request that ended, or when the channel's `deposit` does not cover it.
        """
        return self._make(request, amount, to, (), deposit)

    def end_job(
        self, request: Hash, leaf: ReceiptLeaf, *, to: int | None = None, deposit: int | None = None
    ) -> Payment:
        """End a request with its leaf and return the payment that says so: send it, the payee waits for it.

        The request is paid up to `leaf.hop_amount`; what it was paid above that becomes credit. Raise `PaymentError`.
        """
        before = self.account.store.paid(request)
        amount = max(before.amount, leaf.hop_amount)
        if leaf.kind == ABORTED and leaf.hash != request:
            raise LeafError("an aborted job's leaf holds its request")
        return self._make(request, amount, before.to if to is None else to, (leaf,), deposit)

    def draft(self, request: Hash, amount: int, to: int, leaf: ReceiptLeaf | None = None) -> Payment:
        """Return the payment that `pay`, or `end_job` with a `leaf`, would make now, and journal nothing.

        Keep it by that call, with nothing paid on the channel in between; until then it may not be sent. Raise
        `PaymentError`.
        """
        ended = () if leaf is None else (leaf,)
        with self.account.change():
            if same := self._same(request, amount, to, ended):
                return self._payment(same)
            step = self.account.plan(request, amount, to, [(each, request) for each in ended])
        return Payment(
            voucher=self._key.signed(self._domain, self.account.voucher(step)),
            pay=self._key.signed(self._domain, self.account.pay(step)),
            ended=ended,
            consistency=step.consistency,
        )

    def last(self) -> Payment | None:
        """Return the channel's last payment."""
        head = self.account.store.head()
        return self._payment(head) if head and head.request != HASH_ZERO else None

    def latest(self, count: int) -> list[Payment]:
        """Return the channel's last payments, oldest first."""
        return [self._payment(each) for each in self.account.store.latest(count) if each.request != HASH_ZERO]

    def recover(self, voucher: Signed[Voucher] | None, leaves: Sequence[ReceiptLeaf] = ()) -> list[Payment]:
        """Compare with the payee's last voucher and return the payments it lacks, oldest first.

        A payee that is ahead holds a voucher of a journal we lost: it is taken over when `leaves` (the channel's
        ended jobs as the payee publishes them) lead to its root. Raise `RecoveryError` or `ConflictError` otherwise.
        """
        if voucher is None:
            return self._payments(0)
        if voucher.signer(self._domain) != self._key.address:
            raise RecoveryError("the payee's voucher is not signed by this channel's key; distrust the payee")
        if (voucher.message.payer, voucher.message.payee) != (self.account.payer, self.account.payee):
            raise RecoveryError("the payee's voucher is of another channel; distrust the payee")
        if entry := self.account.store.first_with(voucher.message):
            # Payments that credit covers leave the voucher as it is: the payee may lack some and not show it. Without
            # one that made it grow the payee could not have come to this voucher.
            store = self.account.store
            quiet = [each for each in store.running(entry.seq) if each.increase and not store.grew(each)]
            return [*(self._payment(each) for each in quiet), *self._payments(entry.seq)]
        head = self.account.store.head()
        if head and voucher.message.cumulative <= head.cumulative:
            signed = struct_hash(self.account.voucher(head))
            raise ConflictError("voucher", signed=signed, asked=struct_hash(voucher.message))
        self._adopt(voucher, leaves, head)
        return []

    def root_at(self, jobs: int) -> Hash:
        """Return the root of the receipts tree when it had this many leaves."""
        return self.account.tree().root(jobs)

    def inclusion(self, place: int, jobs: int) -> tuple[Hash, ...]:
        """Return the proof that a leaf is in the tree of this many leaves."""
        return self.account.tree().inclusion(place, jobs)

    def _make(
        self, request: Hash, amount: int, to: int, ended: tuple[ReceiptLeaf, ...], deposit: int | None
    ) -> Payment:
        account = self.account
        with account.change():
            if same := self._same(request, amount, to, ended):
                return self._payment(same)
            step = account.plan(request, amount, to, [(leaf, request) for leaf in ended])
            if deposit is not None and step.cumulative > deposit:
                raise DepositTooSmallError(deposit=deposit, needed=step.cumulative)
            entry = self._record(step)
        return self._payment(entry)

    def _same(self, request: Hash, amount: int, to: int, ended: tuple[ReceiptLeaf, ...]) -> Entry | None:
        entry = self.account.store.last_of(request)
        if entry is None or (entry.amount, entry.to) != (amount, to):
            return None
        return entry if self.account.store.leaves_of(entry.seq) == ended else None

    def _record(self, step: Step) -> Entry:
        at = int(self._clock())
        return self.account.record(step, pay=self.account.pay(step), signatures=(_NOT_SIGNED, _NOT_SIGNED), at=at)

    def _payments(self, after: int) -> list[Payment]:
        return [self._payment(each) for each in self.account.store.entries_after(after) if each.request != HASH_ZERO]

    def _payment(self, entry: Entry) -> Payment:
        voucher: Signed[Voucher] = self._key.signed(self._domain, self.account.voucher(entry))
        pay: Signed[Pay] = self._key.signed(self._domain, self.account.pay(entry))
        ended = self.account.store.leaves_of(entry.seq)
        return Payment(voucher=voucher, pay=pay, ended=ended, consistency=entry.consistency)

    def _adopt(self, voucher: Signed[Voucher], leaves: Sequence[ReceiptLeaf], head: Entry | None) -> None:
        message = voucher.message
        if len(leaves) != message.jobs or tree_root(leaf.encode() for leaf in leaves) != message.receipts_root:
            raise RecoveryError(
                f"the payee holds a newer voucher over {message.jobs} ended jobs that this journal does not know; "
                "fetch the channel's receipts from the payee, or open a channel with a fresh signer"
            )
        known = self.account.store.leaves()
        if [each.leaf for each in known] != list(leaves[: len(known)]):
            raise RecoveryError(
                "the payee's ended jobs are not those of this journal; open a channel with a fresh signer"
            )
        step = Step(
            request=HASH_ZERO,
            amount=0,
            to=0,
            increase=0,
            growth=message.cumulative - (head.cumulative if head else 0),
            cumulative=message.cumulative,
            credit=0,
            jobs=message.jobs,
            root=message.receipts_root,
        )
        with self.account.change():
            self._record(step)
            lost = enumerate(leaves[len(known) :], len(known))
            self.account.store.append_leaves([Ended(place=at, leaf=leaf, request=leaf.hash) for at, leaf in lost])


class PayerBook:
    """All channels that one signing key spends; `payer` owns the deposits and may be another account."""

    def __init__(
        self,
        journal: Journal,
        domain: Domain,
        key: Key,
        payer: Address | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._journal = journal
        self._domain = domain
        self._key = key
        self.payer = payer or key.address
        self._clock = clock
        self._channels: dict[Address, PayerChannel] = {}

    @property
    def signer(self) -> Address:
        """Return the key's address, which the channels were opened with."""
        return self._key.address

    def channel(self, payee: Address) -> PayerChannel:
        """Return the channel to a payee; it need not be open on chain yet."""
        if payee not in self._channels:
            account = Account(self._journal, "payer", self.payer, payee, self._key.address)
            self._channels[payee] = PayerChannel(self._domain, self._key, account, self._clock)
        return self._channels[payee]

    def payees(self) -> list[Address]:
        """Return whom anything was ever promised with this key."""
        query = "SELECT payee FROM channels WHERE role = 'payer' AND payer = ? AND signer = ?"
        return [Address(row[0]) for row in self._journal.all(query, self.payer, self.signer)]

    def jobs(self) -> list[PaidJob]:
        """Return all requests paid with this key, oldest first."""
        return self._jobs(None)

    def job(self, request: Hash) -> PaidJob | None:
        """Return one request, None when nothing was paid for it."""
        return next(iter(self._jobs(request)), None)

    def _jobs(self, only: Hash | None) -> list[PaidJob]:
        rows = self._journal.all(
            "SELECT p.request, c.payee FROM payments p JOIN channels c "
            "ON c.role = p.role AND c.channel = p.channel "
            "WHERE p.role = 'payer' AND c.payer = ? AND c.signer = ? "
            "AND p.request != ? AND (? IS NULL OR p.request = ?) "
            "GROUP BY p.request, p.channel ORDER BY MIN(p.seq)",
            self.payer,
            self._key.address,
            HASH_ZERO,
            only,
            only,
        )
        found = [(self.channel(Address(row[1])).account, Hash(row[0])) for row in rows]
        return [self._job(account, entry) for account, request in found if (entry := account.store.last_of(request))]

    def _job(self, account: Account, entry: Entry) -> PaidJob:
        ended = account.store.ended(entry.request)
        return PaidJob(
            request=entry.request,
            channel=account.channel,
            payee=account.payee,
            signer=account.signer,
            paid=entry.amount,
            to=entry.to,
            cumulative=entry.cumulative,
            at=entry.at,
            leaf=ended.leaf if ended else None,
            place=ended.place if ended else None,
        )
