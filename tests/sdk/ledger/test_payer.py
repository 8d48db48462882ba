"""What a payer signs: journalled first, never lower, never twice differently, and found again after a restart."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.sdk.ledger_cases import DOMAIN, NOW, PAYEE, SIGNER, Pair, aborted_leaf, receipt_leaf, request

from plait.ledger import (
    ConflictError,
    DepositTooSmallError,
    EndedError,
    Journal,
    LeafError,
    LowerAmountError,
    PayerBook,
    RecoveryError,
)
from plait.protocol.ids import Address
from plait.protocol.tree import verify_inclusion
from plait.protocol.typed import Key, Signed, struct_hash


def test_pay_names_payer_apart_from_signer(pair: Pair) -> None:
    owner = Address(bytes(19) + b"\x0a")
    book = PayerBook(pair.payer_journal, DOMAIN, SIGNER, owner)

    payment = book.channel(PAYEE).pay(request(1), 10, 0)

    assert payment.voucher.message.payer == owner
    assert payment.voucher.signer(DOMAIN) == payment.pay.signer(DOMAIN) == SIGNER.address
    assert pair.accept(payment).payer == owner


def test_pay_repeated_returns_the_same_payment(pair: Pair) -> None:
    first = pair.channel.pay(request(1), 100, 4)
    pair.channel.pay(request(2), 5, 0)
    pair.reopen()

    assert pair.channel.pay(request(1), 100, 4) == first
    assert pair.channel.cumulative == 105


def test_pay_lower_than_before_is_refused(pair: Pair) -> None:
    pair.channel.pay(request(1), 100, 4)
    pair.reopen()

    with pytest.raises(LowerAmountError):
        pair.channel.pay(request(1), 99, 4)
    assert pair.channel.cumulative == 100


def test_pay_above_the_deposit_is_not_signed(pair: Pair) -> None:
    pair.channel.pay(request(1), 100, 0, deposit=100)

    with pytest.raises(DepositTooSmallError):
        pair.channel.pay(request(1), 101, 1, deposit=100)
    with pytest.raises(DepositTooSmallError):
        pair.channel.end_job(request(1), receipt_leaf(1, 101), deposit=100)
    assert pair.channel.cumulative == 100


def test_pay_after_the_end_is_refused(pair: Pair) -> None:
    pair.channel.pay(request(1), 100, 0)
    pair.channel.end_job(request(1), receipt_leaf(1, 100))

    with pytest.raises(EndedError):
        pair.channel.pay(request(1), 101, 1)


def test_end_job_repeated_returns_the_same_payment(pair: Pair) -> None:
    pair.channel.pay(request(1), 100, 0)
    first = pair.channel.end_job(request(1), receipt_leaf(1, 120))
    pair.reopen()

    assert pair.channel.end_job(request(1), receipt_leaf(1, 120)) == first


def test_end_job_with_another_request_in_its_leaf_is_refused(pair: Pair) -> None:
    pair.channel.pay(request(1), 100, 0)

    with pytest.raises(LeafError):
        pair.channel.end_job(request(1), aborted_leaf(2, 0))


def test_jobs_list_what_was_paid_and_how_it_ended(pair: Pair) -> None:
    pair.channel.pay(request(1), 100, 0)
    pair.channel.end_job(request(1), receipt_leaf(1, 120))
    pair.payer.channel(Address(bytes(19) + b"\x02")).pay(request(2), 7, 1)
    pair.reopen()

    ended, running = pair.payer.jobs()

    assert (ended.request, ended.paid, ended.leaf, ended.place) == (request(1), 120, receipt_leaf(1, 120), 0)
    assert (running.request, running.paid, running.to, running.leaf) == (request(2), 7, 1, None)
    assert pair.payer.job(request(2)) == running
    assert pair.payer.job(request(3)) is None


def test_inclusion_proves_a_job_under_a_later_root(pair: Pair) -> None:
    for number in range(5):
        pair.channel.pay(request(number), 10, 0)
        pair.channel.end_job(request(number), receipt_leaf(number, 10))

    for size in range(3, 6):
        proof = pair.channel.inclusion(2, size)
        leaf = receipt_leaf(2, 10).encode()
        verify_inclusion(leaf, index=2, size=size, proof=proof, root=pair.channel.root_at(size))


def test_recover_payee_behind_gets_what_it_lacks(pair: Pair) -> None:
    first = pair.channel.pay(request(1), 100, 0)
    second = pair.channel.pay(request(1), 150, 16)
    third = pair.channel.end_job(request(1), receipt_leaf(1, 200))
    pair.reopen()

    assert pair.channel.recover(None) == [first, second, third]
    assert pair.channel.recover(first.voucher) == [second, third]
    assert pair.channel.recover(third.voucher) == []


def test_recover_brings_what_credit_paid_for_a_job_that_ended_later(pair: Pair) -> None:
    """A payment that credit covers leaves no mark on the voucher; the job's end, sent later, does not tell of it."""
    channel = pair.channel
    channel.pay(request(1), 700, 0)
    channel.pay(request(2), 0, 0)
    pair.accept(channel.end_job(request(1), aborted_leaf(1, 0)))
    channel.pay(request(3), 400, 0)  # credit covers it; it is lost on the way
    arrived = channel.end_job(request(2), receipt_leaf(2, 0))
    pair.accept(arrived)
    channel.pay(request(4), 400, 0)
    channel.end_job(request(3), aborted_leaf(3, 0))

    for payment in channel.recover(arrived.voucher):
        pair.accept(payment)

    state = pair.payee.state(SIGNER.address, SIGNER.address)
    assert state is not None
    assert (state.voucher.message.cumulative, state.credit) == (channel.cumulative, channel.credit)


def test_recover_leaves_out_what_the_payees_voucher_shows(pair: Pair) -> None:
    """A voucher that grew by a payment cannot be reached without it, however many requests run."""
    channel = pair.channel
    for number in range(1, 6):
        pair.accept(channel.pay(request(number), 100, 0))
    refused = channel.pay(request(6), 100, 0)

    state = pair.payee.state(SIGNER.address, SIGNER.address)

    assert state is not None
    assert channel.recover(state.voucher) == [refused]


def test_recover_payee_ahead_takes_its_voucher_over(pair: Pair, tmp_path: Path) -> None:
    pair.accept(pair.channel.pay(request(1), 100, 0))
    pair.close()
    shutil.copy(tmp_path / "payer.db", tmp_path / "backup.db")
    pair.reopen()
    pair.accept(pair.channel.end_job(request(1), receipt_leaf(1, 150)))
    pair.accept(pair.channel.pay(request(2), 30, 0))
    pair.accept(pair.channel.end_job(request(2), receipt_leaf(2, 30)))
    state = pair.payee.state(SIGNER.address, SIGNER.address)
    assert state is not None

    with Journal(tmp_path / "backup.db") as old:
        channel = PayerBook(old, DOMAIN, SIGNER, clock=lambda: NOW).channel(PAYEE)
        with pytest.raises(RecoveryError, match="fetch the channel's receipts"):
            channel.recover(state.voucher)

        assert channel.recover(state.voucher, [receipt_leaf(1, 150), receipt_leaf(2, 30)]) == []

        assert channel.cumulative == 180
        accepted = pair.accept(channel.pay(request(3), 20, 0))
        assert accepted.cumulative == 200
        assert pair.accept(channel.end_job(request(3), receipt_leaf(3, 20))).jobs == 3


def test_recover_voucher_that_contradicts_ours_is_a_conflict(pair: Pair, tmp_path: Path) -> None:
    pair.channel.pay(request(1), 100, 0)
    with Journal(tmp_path / "other.db") as other:
        rival = PayerBook(other, DOMAIN, SIGNER).channel(PAYEE).pay(request(2), 60, 0)

    with pytest.raises(ConflictError, match="two programs use this key"):
        pair.channel.recover(rival.voucher)


def test_recover_voucher_of_another_key_or_channel_is_refused(pair: Pair) -> None:
    voucher = pair.channel.pay(request(1), 100, 0).voucher
    elsewhere = pair.payer.channel(SIGNER.address).pay(request(1), 100, 0).voucher

    with pytest.raises(RecoveryError, match="not signed"):
        pair.channel.recover(Signed(message=voucher.message, signature=Key.generate().sign(DOMAIN, voucher.message)))
    with pytest.raises(RecoveryError, match="another channel"):
        pair.channel.recover(elsewhere)


def test_voucher_names_what_the_books_hold(pair: Pair) -> None:
    payment = pair.channel.pay(request(1), 100, 0)

    assert payment.pay.message.voucher == struct_hash(payment.voucher.message)
    assert payment.voucher.message.receipts_root == pair.channel.root_at(0)
