"""Replay of single events: what each wrong log is called, and where it points."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.chain.abi import CONTRACTS, artifact
from plait.protocol.ids import Address, Hash, channel_id, keccak
from plait_audit.apply import RULES, apply
from plait_audit.entry import Entry
from plait_audit.state import Place, State

PAYER, PAYEE, SIGNER, HOLDER = (Address(bytes([n]) * 20) for n in (1, 2, 3, 4))
CHANNEL = channel_id(PAYER, PAYEE, SIGNER)
ROOT = keccak(b"root")
Event = tuple[str, str, dict[str, object]]


def entries(*events: Event, time: int = 1_000) -> Iterable[Entry]:
    for index, (contract, name, values) in enumerate(events):
        place = Place(block=index + 1, tx=keccak(bytes([index])), index=0)
        yield Entry(contract=contract, name=name, values=values, place=place, time=time)


def replayed(*events: Event, time: int = 1_000) -> State:
    state = State(epoch_length=600, fee_bps=100, unbonding_delay=1_200, holders=frozenset({HOLDER}))
    for entry in entries(*events, time=time):
        apply(state, entry)
    return state


def opened(amount: int, deposit: int | None = None) -> Event:
    values = {"id": CHANNEL, "payer": PAYER, "payee": PAYEE, "signer": SIGNER, "amount": amount}
    return "Channels", "ChannelOpened", values | {"deposit": amount if deposit is None else deposit}


def claimed(cumulative: int, payee: Address = PAYEE) -> Event:
    values: dict[str, object] = {
        "id": CHANNEL,
        "payee": payee,
        "cumulative": cumulative,
        "jobs": 1,
        "receiptsRoot": ROOT,
    }
    return "Channels", "VoucherClaimed", values


def accrued(earned: int, fee: int, rows: int = 1, epoch: int = 1) -> Event:
    values: dict[str, object] = {"payee": PAYEE, "epoch": epoch, "earned": earned, "fee": fee, "rows": rows}
    return "Channels", "Accrued", values


def channel_event(name: str, **values: object) -> Event:
    return "Channels", name, {"id": CHANNEL, "payer": PAYER, **values}


def node_event(name: str, **values: object) -> Event:
    return "NodeRegistry", name, {"owner": PAYEE, **values}


def slashed(verdicts: int, amount: int = 1, stake: int = 99) -> Event:
    return node_event("NodeSlashed", amount=amount, stake=stake, unbonding=0, verdicts=verdicts)


REGISTERED = node_event("NodeRegistered", roles=4, endpoint="", dhtKey=bytes(32))
STAKED = node_event("Staked", amount=100, stake=100)


def test_apply_of_a_right_life_finds_nothing() -> None:
    state = replayed(opened(1_000), claimed(400), accrued(400, 4), claimed(500), accrued(500, 5, rows=2))

    assert state.findings == []
    assert (state.accounts[PAYEE].current, state.accounts[PAYEE].held) == (495, 500)


@pytest.mark.parametrize(
    ("check", "events"),
    [
        ("channel-id", [("Channels", "ChannelOpened", {**opened(5)[2], "id": Hash(bytes(32))})]),
        ("channels-known", [claimed(5)]),
        ("deposits", [opened(5, deposit=6)]),
        ("vouchers-only-grow", [opened(9), claimed(5), claimed(5), accrued(5, 1)]),
        ("claims-within-deposit", [opened(9), claimed(10), accrued(10, 1)]),
        ("claims-to-payee", [opened(9), claimed(5, payee=PAYER), accrued(5, 1)]),
        ("earnings", [opened(9), claimed(5), accrued(6, 1)]),
        ("fees", [opened(900), claimed(500), accrued(500, 4)]),
        ("epochs", [opened(9), claimed(5), accrued(5, 1, epoch=2)]),
        ("channel-transitions", [opened(9), channel_event("ChannelWithdrawn", amount=9)]),
        (
            "channel-transitions",
            [opened(9), channel_event("ExitStarted", exitAt=1_001), channel_event("ChannelWithdrawn", amount=9)],
        ),
        ("nodes-known", [STAKED]),
        ("stakes", [REGISTERED, node_event("Staked", amount=100, stake=101)]),
        ("keys-for-ever", [node_event("ServiceKeyRevoked", key=SIGNER, revokedAt=5)]),
        (
            "releases-within-stake",
            [
                REGISTERED,
                STAKED,
                opened(900),
                claimed(500),
                accrued(500, 5),
                ("Channels", "Released", {"payee": PAYEE, "epoch": 5, "amount": 60, "released": 60}),
            ],
        ),
        (
            "releases-mature",
            [
                REGISTERED,
                STAKED,
                opened(900),
                claimed(500),
                accrued(500, 5),
                ("Channels", "Released", {"payee": PAYEE, "epoch": 1, "amount": 40, "released": 40}),
            ],
        ),
        ("verdicts", [REGISTERED, STAKED, slashed(2)]),
        ("jails", [REGISTERED, node_event("NodeJailed", jailedUntil=1_000 + 1_201)]),
        ("token", [("Token", "Transfer", {"from": HOLDER, "to": PAYEE, "value": 1})]),
        ("known-events", [("Channels", "", {})]),
    ],
)
def test_apply_of_a_wrong_log_finds_it_at_its_place(
    check: str, events: list[tuple[str, str, dict[str, object]]]
) -> None:
    state = replayed(*events)

    found = [finding for finding in state.findings if finding.check == check]
    assert found, [finding.check for finding in state.findings]
    assert found[0].place is not None
    assert 1 <= found[0].place.block <= len(events)


def test_apply_of_verdicts_counts_them() -> None:
    state = replayed(REGISTERED, STAKED, slashed(1), slashed(2, stake=98))

    assert state.findings == []
    assert state.nodes[PAYEE].verdicts == 2


def test_apply_of_a_token_s_own_events_and_of_tokens_from_before_the_deployment_finds_nothing() -> None:
    transfers = [
        ("Token", "Transfer", {"from": PAYER, "to": HOLDER, "value": 5}),
        ("Token", "Transfer", {"from": HOLDER, "to": PAYEE, "value": 2}),
    ]

    state = replayed(*transfers, ("Token", "", {}), ("Token", "AuthorizationUsed", {}))

    assert state.findings == []
    assert state.balances == {HOLDER: 3}


def test_every_event_of_every_contract_has_a_rule() -> None:
    events = {(name, event.name) for name in CONTRACTS for event in artifact(name).events.values()}

    assert set(RULES) == events


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=20))
def test_apply_of_growing_vouchers_conserves_money(increases: list[int]) -> None:
    events = [opened(sum(increases))]
    earned = fees = 0
    for rows, increase in enumerate(increases, start=1):
        earned, fees = earned + increase, fees + -(-increase // 100)
        events += [claimed(earned), accrued(earned, fees, rows=rows)]

    state = replayed(*events)

    channel, account = state.channels[CHANNEL], state.accounts[PAYEE]
    assert state.findings == []
    assert channel.deposit - channel.claimed + account.held == sum(increases)
    assert account.current + account.fee == earned
