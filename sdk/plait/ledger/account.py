"""One channel's account, the same on both ends: what the next voucher must be."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager

from plait.ledger.errors import EndedError, LeafError, LowerAmountError
from plait.ledger.journal import Journal
from plait.ledger.store import ChannelStore, Ended, Entry, Role, Step
from plait.protocol.ids import Address, Hash, Signature
from plait.protocol.messages import Pay, Voucher
from plait.protocol.receipts import ABORTED, ReceiptLeaf
from plait.protocol.tree import Tree
from plait.protocol.typed import struct_hash


class Account:
    """The account of one channel over its rows in the journal."""

    def __init__(self, journal: Journal, role: Role, payer: Address, payee: Address, signer: Address) -> None:
        self.store = ChannelStore(journal, role, payer, payee, signer)
        self.channel = self.store.channel
        self.payer = payer
        self.payee = payee
        self.signer = signer
        self._tree = Tree()

    @contextmanager
    def change(self) -> Generator[None]:
        """Run a transaction of the journal; what was planned in vain is forgotten."""
        try:
            with self.store.journal.write():
                yield
        except BaseException:
            self._tree = Tree()
            raise

    def tree(self) -> Tree:
        """Return the receipts tree as journalled."""
        count = self.store.count()
        if len(self._tree) > count:
            self._tree = Tree()
        for ended in self.store.leaves(len(self._tree)) if len(self._tree) < count else ():
            self._tree.append(ended.leaf.encode())
        return self._tree

    def plan(self, request: Hash, amount: int, to: int, ended: Sequence[tuple[ReceiptLeaf, Hash]]) -> Step:
        """Return the state after paying `amount` in all for a request, and after these jobs ended; inside `change`.

        Credit is used before the voucher grows; what an ended job was paid above its `hop_amount` becomes credit for
        later payments. Raise `PaymentError`.
        """
        head = self.store.head()
        before = self.store.paid(request)
        if before.ended:
            raise EndedError(request)
        if amount < before.amount or to < before.to:
            raise LowerAmountError(request, paid=before.amount, offered=amount)
        increase = amount - before.amount
        credit = head.credit if head else 0
        growth = max(0, increase - credit)
        credit += growth - increase + self._unused(ended, {request: amount})
        tree = self.tree()
        size = len(tree)
        places = tuple(Ended(place=tree.append(leaf.encode()), leaf=leaf, request=owner) for leaf, owner in ended)
        return Step(
            request=request,
            amount=amount,
            to=to,
            increase=increase,
            growth=growth,
            cumulative=(head.cumulative if head else 0) + growth,
            credit=credit,
            jobs=len(tree),
            root=tree.root(),
            consistency=tree.consistency(size),
            ended=places,
        )

    def spend_credit(self, request: Hash, pay: Pay) -> Step | None:
        """Return the state after a Pay that credit covers alone, so that the voucher stays; None when it does not."""
        head = self.store.head()
        before = self.store.paid(request)
        if before.ended:
            raise EndedError(request)
        if head is None or not 0 <= pay.amount - before.amount <= head.credit or pay.to < before.to:
            return None
        increase = pay.amount - before.amount
        return Step(
            request=request,
            amount=pay.amount,
            to=pay.to,
            increase=increase,
            growth=0,
            cumulative=head.cumulative,
            credit=head.credit - increase,
            jobs=head.jobs,
            root=head.root,
        )

    def record(self, step: Step, *, pay: Pay, signatures: tuple[Signature, Signature], at: int) -> Entry:
        """Append a planned state to the journal, with its voucher's and its Pay's signature; inside `change`."""
        return self.store.append(step, struct_hash(pay), signatures=signatures, at=at)

    def voucher(self, state: Step | Entry) -> Voucher:
        """Return the voucher of a state."""
        return Voucher(
            payer=self.payer,
            payee=self.payee,
            cumulative=state.cumulative,
            jobs=state.jobs,
            receipts_root=state.root,
        )

    def pay(self, state: Step | Entry) -> Pay:
        """Return the Pay of a state."""
        voucher = struct_hash(self.voucher(state))
        return Pay(request=state.request, voucher=voucher, amount=state.amount, to=state.to)

    def _unused(self, ended: Sequence[tuple[ReceiptLeaf, Hash]], now_paid: dict[Hash, int]) -> int:
        credit = 0
        seen: set[Hash] = set()
        for leaf, request in ended:
            before = self.store.paid(request)
            paid = now_paid.get(request, before.amount)
            if before.ended or request in seen:
                raise EndedError(request)
            if not before.known and request not in now_paid:
                raise LeafError("a job ended of which this channel never heard")
            if leaf.kind == ABORTED and leaf.hash != request:
                raise LeafError("an aborted job's leaf holds its request")
            if leaf.hop_amount > paid:
                raise LeafError(f"a job cannot end at {leaf.hop_amount} base units when {paid} were paid for it")
            seen.add(request)
            credit += paid - leaf.hop_amount
        return credit
