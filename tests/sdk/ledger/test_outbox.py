"""The outbox: an intent is one row for ever, and is open until something became of it."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.sdk.ledger_cases import NOW

from plait.chain import Transaction, TxResult
from plait.ledger import Journal, Outbox
from plait.protocol.ids import ADDRESS_ZERO, Hash, keccak

RESULT = TxResult(hash=keccak(b"tx"), block=7, gas_used=50_000, fee_wei=1 << 70, events=())
FIRST = Transaction(
    sender=ADDRESS_ZERO,
    nonce=3,
    to=ADDRESS_ZERO,
    data=b"call",
    value=1 << 80,
    gas=60_000,
    max_fee=1 << 40,
    tip=5,
    hash=keccak(b"first"),
    raw=b"signed",
)


@pytest.fixture
def journal(tmp_path: Path) -> Generator[Journal]:
    with Journal(tmp_path / "j.db") as opened:
        yield opened


def outbox(journal: Journal) -> Outbox:
    return Outbox(journal, clock=lambda: NOW)


def test_intent_of_one_name_is_written_once_and_keeps_its_first_body(journal: Journal) -> None:
    first = outbox(journal).intend("claim", b"a", b"body")

    assert outbox(journal).intend("claim", b"a", b"another") == first
    assert outbox(journal).intend("fulfil", b"a", b"body") != first
    assert outbox(journal).newest("claim") == first
    assert outbox(journal).newest("nothing") is None


def test_intent_is_open_until_it_is_done_and_again_when_lost(journal: Journal) -> None:
    box = outbox(journal)
    one, two = box.intend("claim", b"1", b"xa"), box.intend("claim", b"2", b"xb")
    assert box.open("claim") == [one, two]

    done = box.finish(one, "done", result=RESULT)
    box.finish(two, "refused", note="no")

    assert (done.tx, done.block, done.gas_used, done.fee_wei) == (RESULT.hash, 7, 50_000, 1 << 70)
    assert box.open("claim") == []
    assert box.newest_done(b"x", "claim") == one
    assert box.newest_done(b"y", "claim") is None
    box.finish(one, "lost")
    assert box.open("claim") == [one]
    assert box.newest_done(b"x", "claim") is None


def test_variants_are_those_of_the_last_nonce(journal: Journal) -> None:
    box = outbox(journal)
    intent = box.intend("claim", b"1", b"")
    record = box.recorder(intent)
    bumped = replace(FIRST, tip=9, hash=keccak(b"bumped"))
    again = replace(FIRST, nonce=4, to=None, hash=Hash(keccak(b"again")))

    record(FIRST)
    record(bumped)
    assert box.variants(intent) == [FIRST, bumped]
    record(again)

    assert outbox(journal).variants(intent) == [again]
    assert box.variants(box.intend("claim", b"2", b"")) == []
