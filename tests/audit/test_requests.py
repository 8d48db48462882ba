"""Replay of on-chain requests: every fate that the rules allow, and each log that breaks one."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from plait.chain.orders import RequestParameters
from plait.chain.writer import ids_bytes
from plait.protocol.commitments import prompt_commitment
from plait.protocol.ids import Address, keccak
from plait.protocol.sealing import ContentKey
from plait_audit.apply import apply
from plait_audit.checks.storage import params_hash
from plait_audit.entry import Entry
from plait_audit.state import Place, State

PAYER, GATEWAY, OTHER = (Address(bytes([n]) * 20) for n in (1, 2, 3))
IDS = (1, 2, 3)
ASKED_AT, EXCLUSIVE_UNTIL, DEADLINE = 1_000, 1_300, 1_600
PARAMS: dict[str, object] = {
    "payer": PAYER,
    "gateway": GATEWAY,
    "model": b"m" * 32,
    "profile": b"p" * 32,
    "prompt": prompt_commitment(ContentKey.public(), IDS),
    "temperature": 0,
    "topP": 1_000_000,
    "topK": 0,
    "inputTokens": 3,
    "maxTokens": 4,
    "fee": 500,
    "exclusiveUntil": EXCLUSIVE_UNTIL,
    "deadline": DEADLINE,
    "callbackGas": 9_000,
}
# A log: the number of its transaction, its time, its event, its values.
Said = tuple[int, int, str, dict[str, object]]


def asked(values: Mapping[str, object] | None = None, **changed: object) -> Said:
    found = {"id": 1, "gateway": GATEWAY, "request": keccak(b"request"), "params": PARAMS | changed}
    return 1, ASKED_AT, "Requested", found | (values or {})


def published(tx: int = 1, **changed: object) -> Said:
    return tx, ASKED_AT, "PromptPublished", {"id": 1, "gateway": GATEWAY, "ids": ids_bytes(IDS)} | changed


def fulfilled(time: int = DEADLINE, **changed: object) -> Said:
    values = {"id": 1, "gateway": GATEWAY, "receipt": b"r" * 32, "outputHash": b"o" * 32, "outputTokens": 4}
    return 2, time, "Fulfilled", values | changed


def given_back(name: str, time: int, **changed: object) -> Said:
    return 2, time, name, {"id": 1, "payer": PAYER, "fee": 500} | changed


def failed(tx: int = 2) -> Said:
    return tx, DEADLINE, "CallbackFailed", {"id": 1}


def replayed(*said: Said) -> State:
    state = State(epoch_length=600, fee_bps=100, unbonding_delay=1_200, holders=frozenset())
    for index, (tx, time, name, values) in enumerate(said):
        place = Place(block=tx, tx=keccak(bytes([tx])), index=index)
        apply(state, Entry(contract="Requests", name=name, values=values, place=place, time=time))
    return state


@pytest.mark.parametrize(
    ("end", "status", "credited"),
    [
        ([], "open", 0),
        ([fulfilled(EXCLUSIVE_UNTIL)], "fulfilled", 500),
        ([fulfilled(DEADLINE)], "fulfilled", 500),
        ([given_back("Cancelled", EXCLUSIVE_UNTIL + 1)], "cancelled", 0),
        ([given_back("Cancelled", DEADLINE + 1)], "cancelled", 0),
        ([given_back("Refunded", DEADLINE + 1)], "refunded", 0),
    ],
)
@pytest.mark.parametrize("prompt", [[], [published()]], ids=["by commitment", "public"])
def test_request_of_each_right_fate_finds_nothing(
    prompt: list[Said], end: list[Said], status: str, credited: int
) -> None:
    state = replayed(asked(), *prompt, *end, *([failed()] if end else []))

    request = state.requests[1]
    assert state.findings == []
    assert (request.status, request.public, request.callback_failed) == (status, bool(prompt), bool(end))
    assert sum(account.unaccrued for account in state.accounts.values()) == credited


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ([asked({"id": 2})], "request's number"),
        ([asked({"gateway": OTHER})], "gateway"),
        ([asked(exclusiveUntil=ASKED_AT + 59)], "exclusive until"),
        ([asked(exclusiveUntil=DEADLINE + 1)], "exclusive until"),
        ([asked(deadline=ASKED_AT + 3_601)], "exclusive until"),
        ([published()], "without its request"),
        ([asked(), published(tx=2)], "without its request"),
        ([asked(), published(), published()], "without its request"),
        ([asked(), published(gateway=OTHER)], "gateway"),
        ([asked(), published(ids=ids_bytes((1, 2, 4)))], "not what it commits to"),
        ([asked(), published(ids=b"\0\0\0\1\0")], "not what it commits to"),
        ([asked(inputTokens=2), published()], "not what it commits to"),
        ([fulfilled()], "not open"),
        ([asked(), fulfilled(), fulfilled()], "not open"),
        ([asked(), fulfilled(), given_back("Refunded", DEADLINE + 1)], "not open"),
        ([asked(), given_back("Cancelled", DEADLINE + 1), given_back("Refunded", DEADLINE + 1)], "not open"),
        ([asked(), fulfilled(DEADLINE + 1)], "after the deadline"),
        ([asked(), fulfilled(gateway=OTHER)], "gateway"),
        ([asked(), fulfilled(outputTokens=5)], "5 tokens answered of at most 4"),
        ([asked(), given_back("Cancelled", EXCLUSIVE_UNTIL)], "allowed only after 1300"),
        ([asked(), given_back("Refunded", DEADLINE)], "allowed only after 1600"),
        ([asked(), given_back("Cancelled", DEADLINE, fee=499)], "fee"),
        ([asked(), given_back("Cancelled", DEADLINE, payer=OTHER)], "payer"),
        ([failed()], "without its request ending"),
        ([asked(), failed(1)], "without its request ending"),
        ([asked(), fulfilled(), failed(3)], "without its request ending"),
        ([asked(), fulfilled(), failed(), failed()], "without its request ending"),
        ([asked(callbackGas=0), fulfilled(), failed()], "nobody asked for"),
    ],
)
def test_request_with_a_wrong_log_finds_it_at_its_place(said: list[Said], text: str) -> None:
    state = replayed(*said)

    (finding,) = state.findings
    assert finding.check == "requests"
    assert text in finding.text
    assert finding.place is not None
    assert finding.place.index == len(said) - 1


def test_hash_of_parameters_is_what_the_contract_keeps() -> None:
    request = replayed(asked()).requests[1]

    assert params_hash(request) == RequestParameters.from_event(PARAMS).hash()
