"""What a payee accepts, and that everything else changes nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.sdk.ledger_cases import DEPOSIT, DOMAIN, NOW, PAYEE, SIGNER, Pair, aborted_leaf, receipt_leaf, request

from plait.ledger import (
    ClaimedAheadError,
    ClosedError,
    ConflictError,
    DepositTooSmallError,
    EndedError,
    ExitingError,
    LeafError,
    LowerAmountError,
    PaymentError,
    ReceiptsError,
    StaleVoucherError,
    UnknownChannelError,
    WrongPartyError,
)
from plait.protocol.codec import Payment, payment_from_pb, payment_to_pb
from plait.protocol.ids import Hash
from plait.protocol.messages import Pay, Voucher
from plait.protocol.receipts import ReceiptLeaf
from plait.protocol.typed import Key, Signed, struct_hash


def resigned(payment: Payment, *, voucher: Voucher | None = None, pay: Pay | None = None, key: Key = SIGNER) -> Payment:
    """Return the payment with other contents, properly signed."""
    new_voucher = voucher or payment.voucher.message
    new_pay = pay or replace(payment.pay.message, voucher=struct_hash(new_voucher))
    return replace(payment, voucher=key.signed(DOMAIN, new_voucher), pay=key.signed(DOMAIN, new_pay))


def assert_refused(pair: Pair, payment: Payment, error: type[PaymentError], **slot: int) -> PaymentError:
    before = pair.payee.state(SIGNER.address, SIGNER.address)
    with pytest.raises(error) as caught:
        pair.accept(payment, **slot)
    assert pair.payee.state(SIGNER.address, SIGNER.address) == before
    return caught.value


def consented(pair: Pair) -> int:
    """Pay 100 for request 1, consent to end the channel there, and return the exit that was consented to."""
    accepted = pair.accept(pair.channel.pay(request(1), 100, 0))
    exit_at = int(NOW) + 500
    pair.payee.consent_to_close(accepted.channel, claimed=100, exit_at=exit_at)
    return exit_at


def test_accept_next_voucher_returns_what_it_adds(pair: Pair) -> None:
    pair.accept(pair.channel.pay(request(1), 100, 0))

    accepted = pair.accept(pair.channel.pay(request(1), 250, 64))

    assert (accepted.new_amount, accepted.paid, accepted.to, accepted.cumulative) == (150, 250, 64, 250)
    assert accepted.voucher == struct_hash(pair.channel.pay(request(1), 250, 64).voucher.message)
    assert pair.payee.owed(request(1)).amount == 250
    assert not accepted.repeated


def test_accept_survives_reopening(pair: Pair) -> None:
    payment = pair.channel.pay(request(1), 100, 0)
    accepted = pair.accept(payment)
    pair.reopen()

    state = pair.payee.state(SIGNER.address, SIGNER.address)

    assert state is not None
    assert state.voucher == payment.voucher
    assert struct_hash(state.voucher.message) == accepted.voucher


def test_accept_same_payment_twice_adds_nothing(pair: Pair) -> None:
    payment = pair.channel.pay(request(1), 100, 0)
    first = pair.accept(payment)
    pair.accept(pair.channel.pay(request(1), 200, 16))
    pair.reopen()

    again = pair.accept(payment)

    assert again == replace(first, repeated=True)
    assert pair.payee.owed(request(1)).amount == 200


def test_accept_same_payment_while_exiting_still_answers(pair: Pair) -> None:
    payment = pair.channel.pay(request(1), 100, 0)
    pair.accept(payment)

    assert pair.accept(payment, exit_at=1, now=NOW).repeated


def test_accept_over_the_wire_is_the_same(pair: Pair) -> None:
    pair.accept(pair.channel.pay(request(1), 100, 0))
    payment = pair.channel.end_job(request(1), receipt_leaf(1, 100))

    assert pair.accept(payment_from_pb(payment_to_pb(payment))).jobs == 1


@pytest.mark.parametrize("cumulative", [99, 101, 0, DEPOSIT])
def test_accept_wrong_growth_is_refused(pair: Pair, cumulative: int) -> None:
    payment = pair.channel.pay(request(1), 100, 0)
    wrong = resigned(payment, voucher=replace(payment.voucher.message, cumulative=cumulative))

    error = assert_refused(pair, wrong, StaleVoucherError)

    assert isinstance(error, StaleVoucherError)
    assert (error.expected, error.offered) == (100, cumulative)
    assert error.fault().code == "stale_voucher"


def test_accept_skipped_voucher_is_refused_until_the_one_before(pair: Pair) -> None:
    first = pair.channel.pay(request(1), 100, 0)
    second = pair.channel.pay(request(2), 40, 0)
    assert_refused(pair, second, StaleVoucherError)

    pair.accept(first)

    assert pair.accept(second).cumulative == 140


def test_accept_lower_amount_for_a_request_is_refused(pair: Pair) -> None:
    pair.accept(pair.channel.pay(request(1), 100, 10))
    current = pair.channel.pay(request(2), 5, 0)
    pay = Pay(request=request(1), voucher=struct_hash(current.voucher.message), amount=99, to=10)

    assert_refused(pair, resigned(current, pay=pay), LowerAmountError)


def test_accept_fewer_tokens_for_a_request_is_refused(pair: Pair) -> None:
    pair.accept(pair.channel.pay(request(1), 100, 10))
    current = pair.channel.pay(request(2), 5, 0)
    pay = Pay(request=request(1), voucher=struct_hash(current.voucher.message), amount=100, to=9)

    assert_refused(pair, resigned(current, pay=pay), LowerAmountError)


def test_accept_for_another_payee_is_refused(pair: Pair) -> None:
    payment = pair.channel.pay(request(1), 100, 0)
    wrong = resigned(payment, voucher=replace(payment.voucher.message, payee=SIGNER.address))

    assert_refused(pair, wrong, WrongPartyError)


def test_accept_pay_over_another_voucher_is_refused(pair: Pair) -> None:
    first = pair.channel.pay(request(1), 100, 0)
    second = pair.channel.pay(request(1), 200, 0)

    assert_refused(pair, replace(first, pay=second.pay), WrongPartyError)


def test_accept_pay_of_another_key_is_refused(pair: Pair) -> None:
    payment = pair.channel.pay(request(1), 100, 0)
    wrong = replace(payment, pay=Key.generate().signed(DOMAIN, payment.pay.message))

    assert_refused(pair, wrong, WrongPartyError)


def test_accept_of_a_stranger_is_another_channel(pair: Pair) -> None:
    payment = pair.channel.pay(request(1), 100, 0)

    assert_refused(pair, resigned(payment, key=Key.generate()), UnknownChannelError, deposit=0)


def test_accept_above_the_deposit_is_refused(pair: Pair) -> None:
    pair.accept(pair.channel.pay(request(1), 100, 0), deposit=100)

    error = assert_refused(pair, pair.channel.pay(request(1), 101, 1), DepositTooSmallError, deposit=100)

    assert isinstance(error, DepositTooSmallError)
    assert (error.deposit, error.needed) == (100, 101)


def test_accept_new_request_while_exiting_is_refused(pair: Pair) -> None:
    assert_refused(pair, pair.channel.pay(request(1), 100, 0), ExitingError, exit_at=int(NOW) + 500)


def test_accept_running_request_while_exiting_is_paid_until_the_exit(pair: Pair) -> None:
    pair.accept(pair.channel.pay(request(1), 100, 0))
    running = pair.channel.pay(request(1), 200, 16)
    assert_refused(pair, running, ExitingError, exit_at=int(NOW))

    assert pair.accept(running, exit_at=int(NOW) + 1).cumulative == 200


def test_accept_when_the_chain_paid_more_is_refused(pair: Pair) -> None:
    pair.accept(pair.channel.pay(request(1), 100, 0))

    assert_refused(pair, pair.channel.pay(request(1), 200, 1), ClaimedAheadError, claimed=150)


def test_accept_after_consent_to_close_waits_for_a_top_up(pair: Pair) -> None:
    accepted = pair.accept(pair.channel.pay(request(1), 100, 0))
    exit_at = int(NOW) + 500
    with pytest.raises(ClaimedAheadError):
        pair.payee.consent_to_close(accepted.channel, claimed=99, exit_at=exit_at)
    close = pair.payee.consent_to_close(accepted.channel, claimed=100, exit_at=exit_at)
    assert (close.payer, close.payee, close.signer) == (SIGNER.address, PAYEE, SIGNER.address)
    pair.reopen()
    payment = pair.channel.pay(request(1), 120, 1)

    assert_refused(pair, payment, ClosedError, claimed=100, exit_at=exit_at)
    assert_refused(pair, payment, ClosedError, deposit=100, claimed=100)

    assert pair.accept(payment, deposit=150, claimed=100).cumulative == 120


def test_accept_after_consent_and_top_up_follows_a_later_exit_only(pair: Pair) -> None:
    closed_at = consented(pair)
    pair.accept(pair.channel.pay(request(2), 20, 1), deposit=150, claimed=100)
    running, new = pair.channel.pay(request(2), 30, 2), pair.channel.pay(request(3), 5, 0)
    leaving = {"deposit": 150, "claimed": 100, "exit_at": closed_at + 1}
    pair.reopen()

    assert_refused(pair, new, ExitingError, **leaving)

    assert pair.accept(running, **leaving).cumulative == 130


def test_accept_after_consent_and_top_up_and_another_claim_follows_a_later_exit_only(pair: Pair) -> None:
    closed_at = consented(pair)
    pair.accept(pair.channel.pay(request(2), 20, 1), deposit=150, claimed=100)

    accepted = pair.accept(pair.channel.pay(request(2), 30, 2), deposit=150, claimed=120, exit_at=closed_at + 1)

    assert accepted.cumulative == 130


def test_accept_after_consent_and_a_top_up_that_is_claimed_whole_spends_credit(pair: Pair) -> None:
    consented(pair)
    pair.accept(pair.channel.pay(request(2), 50, 1), deposit=150, claimed=100)
    assert pair.accept(pair.channel.end_job(request(2), aborted_leaf(2, 10)), deposit=150, claimed=100).credit == 40

    assert pair.accept(pair.channel.pay(request(3), 30, 1), deposit=150, claimed=150).credit == 10


def test_accept_after_two_consents_is_refused_for_as_long_as_either_holds(pair: Pair) -> None:
    closed_at = consented(pair)
    accepted = pair.accept(pair.channel.pay(request(2), 20, 1), deposit=150, claimed=100)
    pair.payee.consent_to_close(accepted.channel, claimed=120, exit_at=closed_at + 9)
    payment = pair.channel.pay(request(2), 30, 2)

    assert_refused(pair, payment, ClosedError, deposit=150, claimed=120, exit_at=closed_at + 9)
    assert_refused(pair, payment, ClosedError, deposit=120, claimed=120)
    # A reorganisation brought the first exit back.
    assert_refused(pair, payment, ClosedError, deposit=DEPOSIT, claimed=100, exit_at=closed_at)

    assert pair.accept(payment, deposit=150, claimed=120, exit_at=closed_at + 10).cumulative == 130


def test_end_job_carries_leaf_count_and_root(pair: Pair) -> None:
    pair.accept(pair.channel.pay(request(1), 100, 0))

    accepted = pair.accept(pair.channel.end_job(request(1), receipt_leaf(1, 130)))

    assert (accepted.jobs, accepted.paid, accepted.credit) == (1, 130, 0)
    assert pair.payee.owed(request(1)).ended
    state = pair.payee.state(SIGNER.address, SIGNER.address)
    assert state is not None
    assert state.voucher.message.receipts_root == pair.channel.root_at(1)


def test_end_job_below_what_was_paid_becomes_credit_of_the_next(pair: Pair) -> None:
    pair.accept(pair.channel.pay(request(1), 100, 0))
    died = pair.accept(pair.channel.end_job(request(1), aborted_leaf(1, 30)))
    assert (died.credit, died.cumulative) == (70, 100)

    small = pair.accept(pair.channel.pay(request(2), 50, 0))
    large = pair.accept(pair.channel.pay(request(2), 90, 16))

    assert (small.new_amount, small.cumulative, small.credit) == (50, 100, 20)
    assert (large.new_amount, large.cumulative, large.credit) == (40, 120, 0)
    assert pair.channel.credit == 0


def test_end_job_twice_is_refused(pair: Pair) -> None:
    pair.accept(pair.channel.pay(request(1), 100, 0))
    ended = pair.channel.end_job(request(1), receipt_leaf(1, 100))
    pair.accept(ended)
    pay = replace(ended.pay.message, amount=150, voucher=Hash(bytes(32)))
    voucher = replace(ended.voucher.message, cumulative=150)
    again = resigned(ended, voucher=voucher, pay=replace(pay, voucher=struct_hash(voucher)))

    assert_refused(pair, again, EndedError)
    with pytest.raises(EndedError):
        pair.channel.pay(request(1), 200, 20)


def test_end_job_with_another_leaf_than_expected_is_refused(pair: Pair) -> None:
    accepted = pair.accept(pair.channel.pay(request(1), 100, 0))
    pair.payee.end_job(accepted.channel, request(1), receipt_leaf(1, 100, windows=4))

    assert_refused(pair, pair.channel.end_job(request(1), receipt_leaf(1, 100, windows=3)), LeafError)


def test_end_job_expected_twice_differently_is_a_conflict(pair: Pair) -> None:
    accepted = pair.accept(pair.channel.pay(request(1), 100, 0))
    pair.payee.end_job(accepted.channel, request(1), receipt_leaf(1, 100))
    pair.payee.end_job(accepted.channel, request(1), receipt_leaf(1, 100))

    with pytest.raises(ConflictError):
        pair.payee.end_job(accepted.channel, request(1), receipt_leaf(1, 101))


def test_end_job_below_what_was_earned_and_paid_is_refused(pair: Pair) -> None:
    accepted = pair.accept(pair.channel.pay(request(1), 100, 16))
    pair.payee.earn(accepted.channel, request(1), 40)
    pair.payee.earn(accepted.channel, request(1), 60)

    assert_refused(pair, pair.channel.end_job(request(1), aborted_leaf(1, 59)), LeafError)


def test_end_job_down_to_what_was_earned_is_accepted(pair: Pair) -> None:
    accepted = pair.accept(pair.channel.pay(request(1), 100, 16))
    pair.payee.earn(accepted.channel, request(1), 500)

    assert pair.accept(pair.channel.end_job(request(1), aborted_leaf(1, 100))).credit == 0


def forged_ending(pair: Pair, leaf: ReceiptLeaf) -> Payment:
    """Return a payment that carries a leaf which the payer's own book would refuse."""
    base = pair.channel.pay(request(9), 0, 0)
    return replace(base, ended=(leaf,))


def test_end_job_of_an_unknown_request_is_refused(pair: Pair) -> None:
    assert_refused(pair, forged_ending(pair, aborted_leaf(8, 0)), LeafError)


def test_end_job_above_what_was_paid_is_refused(pair: Pair) -> None:
    assert_refused(pair, forged_ending(pair, receipt_leaf(9, 1)), LeafError)


def test_end_job_without_its_leaf_in_the_root_is_refused(pair: Pair) -> None:
    assert_refused(pair, forged_ending(pair, receipt_leaf(9, 0)), ReceiptsError)


def test_end_job_with_a_wrong_root_or_proof_is_refused(pair: Pair) -> None:
    pair.accept(pair.channel.pay(request(1), 100, 0))
    pair.accept(pair.channel.end_job(request(1), receipt_leaf(1, 100)))
    pair.accept(pair.channel.pay(request(2), 100, 0))
    ended = pair.channel.end_job(request(2), receipt_leaf(2, 100))

    for root in (Hash(bytes(32)), pair.channel.root_at(1)):
        assert_refused(pair, resigned(ended, voucher=replace(ended.voucher.message, receipts_root=root)), ReceiptsError)
    assert_refused(pair, resigned(ended, voucher=replace(ended.voucher.message, jobs=3)), ReceiptsError)
    assert_refused(pair, replace(ended, consistency=()), ReceiptsError)
    assert_refused(pair, replace(ended, ended=(receipt_leaf(2, 99),)), ReceiptsError)

    assert pair.accept(ended).jobs == 2


def test_rounds_are_the_vouchers_with_which_jobs_ended(pair: Pair) -> None:
    for number in (1, 2, 3):
        pair.accept(pair.channel.pay(request(number), 100, 0))
        pair.accept(pair.channel.end_job(request(number), receipt_leaf(number, 150)))
    pair.accept(pair.channel.pay(request(4), 10, 0))

    rounds = pair.payee.rounds()

    assert [each.voucher.message.jobs for each in rounds] == [1, 2, 3]
    assert [each.row().cumulative for each in rounds] == [150, 300, 450]
    assert pair.payee.rounds(after=rounds[0].seq) == rounds[1:]
    last = pair.payee.last_round(rounds[0].channel)
    assert last is not None
    assert last.voucher.message.cumulative == 460
    assert all(isinstance(each.voucher, Signed) and each.voucher.signer(DOMAIN) == SIGNER.address for each in rounds)
