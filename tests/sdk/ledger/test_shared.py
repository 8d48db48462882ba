"""A book whose channels are logged outside: what is drafted is not journalled, what is replayed is the same state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.sdk.ledger_cases import DEPOSIT, DOMAIN, NOW, PAYEE, SIGNER, Pair, aborted_leaf, receipt_leaf, request

from plait.ledger import Accepted, Draft, Journal, LeafError, SharedBook, StaleVoucherError
from plait.protocol.codec import Payment
from plait.protocol.ids import Hash


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair.make(tmp_path)
    yield made
    made.close()


@pytest.fixture
def successor(tmp_path: Path) -> Iterator[SharedBook]:
    with Journal(tmp_path / "successor.db") as journal:
        yield SharedBook(journal, DOMAIN, PAYEE)


@pytest.fixture
def shared(pair: Pair) -> SharedBook:
    return SharedBook(pair.payee_journal, DOMAIN, PAYEE)


def drafted(book: SharedBook, payment: Payment) -> Draft:
    draft = book.draft(payment, deposit=DEPOSIT, claimed=0, exit_at=0, now=NOW)
    assert isinstance(draft, Draft)
    return draft


def four(pair: Pair) -> list[Payment]:
    """Return a channel's payments: two jobs, one aborted with credit left, one ended with a receipt."""
    channel = pair.channel
    return [
        channel.pay(request(1), 100, 0),
        channel.pay(request(2), 50, 0),
        channel.end_job(request(1), aborted_leaf(1, 60)),
        channel.end_job(request(2), receipt_leaf(2, 90), to=8),
    ]


def test_draft_that_is_not_kept_leaves_the_channel_as_it_was(pair: Pair, shared: SharedBook) -> None:
    first, second, *_ = four(pair)
    drafted(shared, first)
    assert shared.channels() == []
    assert not shared.known(pair.channel.id)

    shared.keep(drafted(shared, first), 7)
    drafted(shared, second)

    (state,) = shared.channels()
    assert (state.voucher.message.cumulative, shared.logged(pair.channel.id)) == (100, 7)


def test_draft_with_leaves_that_is_not_kept_does_not_spoil_the_tree(pair: Pair, shared: SharedBook) -> None:
    payments = four(pair)
    for number, payment in enumerate(payments):
        drafted(shared, payment)
        shared.keep(drafted(shared, payment), number + 1)

    (state,) = shared.channels()
    assert state.voucher == payments[-1].voucher


def test_draft_of_an_accepted_payment_is_the_same_acceptance(pair: Pair, shared: SharedBook) -> None:
    payment = four(pair)[0]
    kept = shared.keep(drafted(shared, payment), 1)

    again = shared.draft(payment, deposit=DEPOSIT, claimed=0, exit_at=0, now=NOW + 60)

    assert isinstance(again, Accepted)
    assert (again.repeated, again.at, again.voucher) == (True, kept.at, kept.voucher)


def test_replayed_payments_give_the_state_their_owner_had(
    pair: Pair, shared: SharedBook, successor: SharedBook
) -> None:
    payments = four(pair)
    for number, payment in enumerate(payments):
        shared.keep(drafted(shared, payment), number + 1)
        assert successor.replay(payment, at=int(NOW), sequence=number + 1)

    assert successor.channels() == shared.channels()
    assert successor.leaves(pair.channel.id) == shared.leaves(pair.channel.id)
    assert successor.logged(pair.channel.id) == len(payments)
    assert not successor.replay(payments[1], at=int(NOW), sequence=len(payments))
    pay = replace(pair.channel.pay(request(3), 5, 0).pay.message, voucher=payments[0].voucher.struct_hash())
    with pytest.raises(StaleVoucherError):
        drafted(successor, Payment(voucher=payments[0].voucher, pay=SIGNER.signed(DOMAIN, pay)))


def test_replay_of_a_payment_out_of_order_is_refused(pair: Pair, successor: SharedBook) -> None:
    first, second, *_ = four(pair)
    with pytest.raises(StaleVoucherError):
        successor.replay(second, at=int(NOW), sequence=1)
    assert successor.logged(pair.channel.id) == 0
    assert successor.replay(first, at=int(NOW), sequence=1)


def test_replay_takes_a_leaf_that_its_owner_judged_and_a_draft_does_not(pair: Pair, shared: SharedBook) -> None:
    *before, ended, _ = four(pair)
    shared.earn(pair.channel.id, request(1), 80)
    for number, payment in enumerate(before):
        shared.keep(drafted(shared, payment), number + 1)

    with pytest.raises(LeafError):
        drafted(shared, ended)
    assert shared.replay(ended, at=int(NOW), sequence=3)


def test_payments_of_a_journal_are_what_came_also_where_credit_paid_late(
    pair: Pair, shared: SharedBook, successor: SharedBook
) -> None:
    channel = pair.channel
    sent = [channel.pay(request(1), 100, 0), channel.pay(request(3), 10, 0)]
    sent.append(channel.end_job(request(1), aborted_leaf(1, 10)))
    late = channel.pay(request(2), 40, 0)  # credit covers it: the voucher stays
    sent += [channel.end_job(request(3), receipt_leaf(3, 10)), late]
    for number, payment in enumerate(sent):
        shared.keep(drafted(shared, payment), number + 1)

    found = shared.payments(channel.id)

    assert found == [(payment, int(NOW)) for payment in sent]
    for number, (payment, at) in enumerate(found):
        successor.replay(payment, at=at, sequence=number + 1)
    assert successor.channels() == shared.channels()


def test_running_requests_are_those_paid_lately_and_not_ended(pair: Pair, shared: SharedBook) -> None:
    payments = four(pair)
    for number, payment in enumerate(payments[:3]):
        shared.keep(drafted(shared, payment), number + 1)

    assert shared.running(pair.channel.id, int(NOW)) == [request(2)]
    assert shared.running(pair.channel.id, int(NOW) + 1) == []
    assert shared.running(Hash(bytes(32)), 0) == []
    assert shared.payments(Hash(bytes(32))) == []
