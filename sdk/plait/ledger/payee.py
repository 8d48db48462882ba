"""The payee's book: accept a payment only if it is exactly the next one, and have it on disk before saying so."""

from __future__ import annotations

from dataclasses import dataclass

from plait.ledger.account import Account
from plait.ledger.errors import (
    ClaimedAheadError,
    ClosedError,
    ConflictError,
    DepositTooSmallError,
    ExitingError,
    LeafError,
    ReceiptsError,
    StaleVoucherError,
    UnknownChannelError,
    WrongPartyError,
)
from plait.ledger.journal import Journal, amount_blob, blob_amount
from plait.ledger.store import Entry, Paid, Step
from plait.protocol.codec import Payment
from plait.protocol.errors import BadProofError
from plait.protocol.ids import Address, Hash, Signature, channel_id, to_hex
from plait.protocol.messages import Close, Pay, Voucher
from plait.protocol.receipts import ABORTED, RECEIPT, ClaimRow, ReceiptLeaf
from plait.protocol.tree import EMPTY_ROOT, verify_consistency
from plait.protocol.typed import Domain, Signed, struct_hash


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A journalled payment: what it added, and where the channel stands after it; amounts in base units."""

    channel: Hash
    payer: Address
    signer: Address
    request: Hash
    new_amount: int
    paid: int
    to: int
    credit: int
    cumulative: int
    jobs: int
    voucher: Hash
    at: int
    repeated: bool  # the same payment was accepted before; nothing was added now


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelState:
    """Where a channel stands: the last voucher with its signature, the credit, when it was accepted."""

    channel: Hash
    payer: Address
    payee: Address
    signer: Address
    voucher: Signed[Voucher]
    request: Hash
    credit: int
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """A voucher with which jobs ended: what one claim takes to the chain. `seq` orders them."""

    seq: int
    channel: Hash
    payer: Address
    signer: Address
    voucher: Signed[Voucher]

    def row(self) -> ClaimRow:
        """Return the voucher as `Channels.claim` reads it."""
        message = self.voucher.message
        return ClaimRow(
            payer=self.payer,
            cumulative=message.cumulative,
            jobs=message.jobs,
            receipts_root=message.receipts_root,
            signature=self.voucher.signature,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A payment that was checked and is not journalled yet; `at` in Unix seconds."""

    account: Account
    step: Step
    pay: Signed[Pay]
    voucher_signature: Signature
    at: int


class PayeeBook:
    """All channels that pay one node; `me` is its owner's address."""

    def __init__(self, journal: Journal, domain: Domain, me: Address) -> None:
        self._journal = journal
        self._domain = domain
        self._me = me
        self._accounts: dict[Hash, Account] = {}

    def accept(self, payment: Payment, *, deposit: int, claimed: int, exit_at: int, now: float) -> Accepted:
        """Journal a payment and return what it adds; the very same payment again returns the same.

        `deposit`, `claimed`, `exit_at` are the channel's slot on chain. Raise `PaymentError` or `BadSignatureError`,
        having changed nothing, unless the payment is the next one of its channel. A request that began before the
        payer started to leave may be paid to its end until then.
        """
        account = self._account_of(payment)
        with account.change():
            draft = self._draft(account, payment, deposit=deposit, claimed=claimed, exit_at=exit_at, now=now)
            return draft if isinstance(draft, Accepted) else self._keep(draft)

    def state(self, payer: Address, signer: Address) -> ChannelState | None:
        """Return where a channel stands, None before its first payment."""
        account = self._account(payer, signer)
        head = account.store.head()
        return _state(account, head) if head else None

    def owed(self, request: Hash, channel: Hash | None = None) -> Paid:
        """Return what was paid for a request, on one channel or on the one that paid most."""
        channels = [channel] if channel else self._channels_of(request)
        found = [self._by_id(each).store.paid(request) for each in channels]
        return max(found, key=lambda paid: paid.amount, default=Paid())

    def end_job(self, channel: Hash, request: Hash, leaf: ReceiptLeaf) -> None:
        """Say which leaf a request must end with, once its receipt exists; a payment with another one is refused."""
        known = self._expected(channel, request)
        if known and known != leaf:
            raise ConflictError("receipt leaf", signed=known.hash, asked=leaf.hash)
        with self._journal.write():
            self._journal.run(
                "INSERT OR IGNORE INTO expected_leaves VALUES (?, ?, ?, ?, ?, ?)",
                channel,
                request,
                leaf.kind,
                leaf.hash,
                amount_blob(leaf.hop_amount),
                leaf.windows_paid,
            )

    def earn(self, channel: Hash, request: Hash, amount: int) -> None:
        """Say what our work on a request is worth so far, in base units: what was paid of it never becomes credit."""
        with self._journal.write():
            self._journal.run("INSERT INTO earned VALUES (NULL, ?, ?, ?)", channel, request, amount_blob(amount))

    def consent_to_close(self, channel: Hash, *, claimed: int, exit_at: int) -> Close:
        """Return the Close to sign; from now on nothing is accepted on the channel until it is topped up.

        `claimed` and `exit_at` are the channel's slot on chain. Raise `ClaimedAheadError` while claimed and journalled
        totals differ: claim first.
        """
        account = self._by_id(channel)
        with self._journal.write():
            head = account.store.head()
            total = head.cumulative if head else 0
            if total != claimed:
                raise ClaimedAheadError(claimed=claimed, journalled=total)
            self._journal.run(
                "INSERT INTO closes (channel, claimed, exit_at) VALUES (?, ?, ?)",
                channel,
                amount_blob(claimed),
                exit_at,
            )
        return Close(payer=account.payer, payee=self._me, signer=account.signer, claimed=claimed, exit_at=exit_at)

    def channels(self) -> list[ChannelState]:
        """Return where each channel stands."""
        rows = self._journal.all("SELECT channel FROM channels WHERE role = 'payee' AND payee = ?", self._me)
        accounts = [self._by_id(Hash(row[0])) for row in rows]
        return [_state(account, head) for account in accounts if (head := account.store.head())]

    def leaves(self, channel: Hash, first: int = 0) -> list[ReceiptLeaf]:
        """Return a channel's ended jobs from a place on, in order; raise `UnknownChannelError`."""
        return [each.leaf for each in self._by_id(channel).store.leaves(first)]

    def rounds(self, after: int = 0) -> list[Round]:
        """Return the vouchers with which jobs ended, oldest first, from a `seq` on."""
        rows = self._journal.all(
            "SELECT DISTINCT p.seq, p.channel FROM payments p JOIN leaves l "
            "ON l.role = p.role AND l.channel = p.channel AND l.payment = p.seq "
            "JOIN channels c ON c.role = p.role AND c.channel = p.channel "
            "WHERE p.role = 'payee' AND c.payee = ? AND p.seq > ? ORDER BY p.seq",
            self._me,
            after,
        )
        return [self._round(Hash(row[1]), row[0]) for row in rows]

    def last_round(self, channel: Hash) -> Round | None:
        """Return the last voucher of a channel, be a job at its end or not."""
        head = self._by_id(channel).store.head()
        return self._round(channel, head.seq) if head else None

    def _round(self, channel: Hash, seq: int) -> Round:
        account = self._by_id(channel)
        entry = account.store.entries_after(seq - 1)[0]
        voucher = Signed(message=account.voucher(entry), signature=entry.voucher_signature)
        return Round(seq=seq, channel=channel, payer=account.payer, signer=account.signer, voucher=voucher)

    def _draft(
        self, account: Account, payment: Payment, *, deposit: int, claimed: int, exit_at: int, now: float
    ) -> Draft | Accepted:
        if known := self._known(account, payment):
            return self._accepted(account, known, repeated=True)
        self._check_slot(account, payment, deposit=deposit, claimed=claimed, exit_at=exit_at, now=now)
        step, voucher_signature = self._late(account, payment) or self._step(account, payment)
        if step.cumulative > deposit:
            raise DepositTooSmallError(deposit=deposit, needed=step.cumulative)
        return Draft(account=account, step=step, pay=payment.pay, voucher_signature=voucher_signature, at=int(now))

    def _keep(self, draft: Draft) -> Accepted:
        signatures = (draft.voucher_signature, draft.pay.signature)
        entry = draft.account.record(draft.step, pay=draft.pay.message, signatures=signatures, at=draft.at)
        return self._accepted(draft.account, entry, repeated=False)

    def _account_of(self, payment: Payment) -> Account:
        voucher, pay = payment.voucher, payment.pay
        if voucher.message.payee != self._me:
            raise WrongPartyError(f"the voucher pays {to_hex(voucher.message.payee)}, not {to_hex(self._me)}")
        if pay.message.voucher != struct_hash(voucher.message):
            raise WrongPartyError("the Pay names another voucher; sign a Pay over this voucher's struct hash")
        signer = voucher.signer(self._domain)
        if pay.signer(self._domain) != signer:
            raise WrongPartyError("voucher and Pay are signed by different keys; sign both with the channel's signer")
        return self._account(voucher.message.payer, signer)

    def _known(self, account: Account, payment: Payment) -> Entry | None:
        """Return the journalled payment that this one repeats, or that already covers it under the same voucher."""
        pay = payment.pay.message
        if entry := account.store.entry_of(struct_hash(pay)):
            return entry
        last = account.store.last_of(pay.request)
        if last is None or payment.ended or not account.store.first_with(payment.voucher.message):
            return None
        return last if pay.amount <= last.amount and pay.to <= last.to else None

    def _check_slot(
        self, account: Account, payment: Payment, *, deposit: int, claimed: int, exit_at: int, now: float
    ) -> None:
        if deposit == 0:
            raise UnknownChannelError(account.channel)
        if self._closed(account.channel, deposit=deposit, claimed=claimed, exit_at=exit_at):
            raise ClosedError
        started = account.store.paid(payment.pay.message.request).known
        if exit_at and (now >= exit_at or not started):
            raise ExitingError(exit_at)
        head = account.store.head()
        if claimed > (head.cumulative if head else 0):
            raise ClaimedAheadError(claimed=claimed, journalled=head.cumulative if head else 0)

    def _late(self, account: Account, payment: Payment) -> tuple[Step, Signature] | None:
        """Return the state after a Pay that credit covers, arriving after a later voucher; None for any other.

        Such a Pay leaves the voucher as it was, so that the next payment does not show that it is missing.
        """
        head = account.store.head()
        if head is None or payment.ended or not account.store.first_with(payment.voucher.message):
            return None
        step = account.spend_credit(payment.pay.message.request, payment.pay.message)
        return (step, head.voucher_signature) if step else None

    def _step(self, account: Account, payment: Payment, *, judged: bool = False) -> tuple[Step, Signature]:
        """Return the next state; `judged` says that its leaves were found right when it was accepted first."""
        voucher, pay = payment.voucher.message, payment.pay.message
        head = account.store.head()
        ended = [(leaf, self._owner(account.channel, leaf, pay.request)) for leaf in payment.ended]
        step = account.plan(pay.request, pay.amount, pay.to, ended)
        if voucher.cumulative != step.cumulative:
            raise StaleVoucherError(expected=step.cumulative, offered=voucher.cumulative)
        for leaf, request in () if judged else ended:
            self._check_leaf(account, leaf, request, pay.amount if request == pay.request else None)
        if voucher.jobs != step.jobs:
            raise ReceiptsError(f"the voucher counts {voucher.jobs} ended jobs, the channel {step.jobs}")
        if voucher.receipts_root != step.root:
            raise ReceiptsError("the voucher's root is not the channel's, extended by the jobs sent along")
        old_size, old_root = (head.jobs, head.root) if head else (0, EMPTY_ROOT)
        try:
            verify_consistency(
                old_size=old_size,
                new_size=step.jobs,
                old_root=old_root,
                new_root=step.root,
                proof=payment.consistency,
            )
        except BadProofError as error:
            raise ReceiptsError(f"the consistency proof fails: {error.text}") from error
        return step, payment.voucher.signature

    def _owner(self, channel: Hash, leaf: ReceiptLeaf, request: Hash) -> Hash:
        """Return the request that a leaf ends: its own, the one we expect it for, or the one being paid."""
        if leaf.kind == ABORTED:
            return leaf.hash
        row = self._journal.one(
            "SELECT request FROM expected_leaves WHERE channel = ? AND kind = ? AND hash = ?",
            channel,
            RECEIPT,
            leaf.hash,
        )
        return Hash(row[0]) if row else request

    def _check_leaf(self, account: Account, leaf: ReceiptLeaf, request: Hash, now_paid: int | None) -> None:
        expected = self._expected(account.channel, request)
        if expected and leaf.kind == RECEIPT and leaf != expected:
            raise LeafError(
                f"request {to_hex(request)} ended with receipt {to_hex(expected.hash)} over {expected.hop_amount} base "
                f"units and {expected.windows_paid} windows; send exactly that leaf"
            )
        row = self._journal.one(
            "SELECT amount FROM earned WHERE channel = ? AND request = ? ORDER BY seq DESC LIMIT 1",
            account.channel,
            request,
        )
        paid = account.store.paid(request).amount if now_paid is None else now_paid
        floor = min(paid, blob_amount(row[0]) if row else 0)
        if leaf.hop_amount < floor:
            raise LeafError(
                f"{floor} base units of request {to_hex(request)} were earned and paid; it cannot end below"
            )

    def _closed(self, channel: Hash, *, deposit: int, claimed: int, exit_at: int) -> bool:
        """Return whether a Close that we signed can still end the channel, or it ended and nothing was put in since."""
        if exit_at:  # a Close is for exactly one slot; an exit after a top-up is another one
            query = "SELECT 1 FROM closes WHERE channel = ? AND exit_at = ? AND claimed = ?"
            return self._journal.one(query, channel, exit_at, amount_blob(claimed)) is not None
        # What ends a channel leaves as deposit what was claimed: more than that was put in later.
        query = "SELECT 1 FROM closes WHERE channel = ? AND claimed >= ?"
        return self._journal.one(query, channel, amount_blob(deposit)) is not None

    def _expected(self, channel: Hash, request: Hash) -> ReceiptLeaf | None:
        row = self._journal.one(
            "SELECT kind, hash, hop_amount, windows_paid FROM expected_leaves WHERE channel = ? AND request = ?",
            channel,
            request,
        )
        if row is None:
            return None
        return ReceiptLeaf(kind=row[0], hash=Hash(row[1]), hop_amount=blob_amount(row[2]), windows_paid=row[3])

    def _accepted(self, account: Account, entry: Entry, *, repeated: bool) -> Accepted:
        return Accepted(
            channel=account.channel,
            payer=account.payer,
            signer=account.signer,
            request=entry.request,
            new_amount=entry.increase,
            paid=entry.amount,
            to=entry.to,
            credit=entry.credit,
            cumulative=entry.cumulative,
            jobs=entry.jobs,
            voucher=struct_hash(account.voucher(entry)),
            at=entry.at,
            repeated=repeated,
        )

    def _account(self, payer: Address, signer: Address) -> Account:
        channel = channel_id(payer, self._me, signer)
        if channel not in self._accounts:
            self._accounts[channel] = Account(self._journal, "payee", payer, self._me, signer)
        return self._accounts[channel]

    def _by_id(self, channel: Hash) -> Account:
        if channel not in self._accounts:
            row = self._journal.one("SELECT payer, signer FROM channels WHERE role = 'payee' AND channel = ?", channel)
            if row is None:
                raise UnknownChannelError(channel)
            self._account(Address(row[0]), Address(row[1]))
        return self._accounts[channel]

    def _channels_of(self, request: Hash) -> list[Hash]:
        rows = self._journal.all(
            "SELECT DISTINCT p.channel FROM payments p JOIN channels c ON c.role = p.role AND c.channel = p.channel "
            "WHERE p.role = 'payee' AND p.request = ? AND c.payee = ?",
            request,
            self._me,
        )
        return [Hash(row[0]) for row in rows]


def _state(account: Account, head: Entry) -> ChannelState:
    return ChannelState(
        channel=account.channel,
        payer=account.payer,
        payee=account.payee,
        signer=account.signer,
        voucher=Signed(message=account.voucher(head), signature=head.voucher_signature),
        request=head.request,
        credit=head.credit,
        at=head.at,
    )
