"""Whom an operator serves."""

from __future__ import annotations

import pytest

from plait.protocol.ids import address
from plait_node.policy import EVERYBODY, Guests, NotServedError

ANNE, BEN, CLEO = (address(bytes([number]) * 20) for number in (1, 2, 3))


def test_policy_that_names_nobody_serves_everybody() -> None:
    for who in (ANNE, BEN, CLEO):
        EVERYBODY.check(who, "payer")


def test_policy_refuses_whom_it_names() -> None:
    guests = Guests(refused=frozenset({ANNE}))
    guests.check(BEN, "payer")
    with pytest.raises(NotServedError, match="payer 0x01"):
        guests.check(ANNE, "payer")


def test_policy_that_allows_somebody_refuses_all_others() -> None:
    guests = Guests(allowed=frozenset({ANNE, BEN}), refused=frozenset({BEN}))
    guests.check(ANNE, "worker")
    for who in (BEN, CLEO):
        with pytest.raises(NotServedError) as caught:
            guests.check(who, "worker")
        assert caught.value.code == "not_served"
