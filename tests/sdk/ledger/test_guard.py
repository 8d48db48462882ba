"""The guard: the same message as often as asked, another one for its place never."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.sdk.ledger_cases import DOMAIN

from plait.ledger import ConflictError, Journal, NotSafe, Safe, SigningGuard
from plait.protocol.ids import ADDRESS_ZERO, HASH_ZERO, Hash
from plait.protocol.messages import Job, Leaf, Progress, Receipt
from plait.protocol.typed import Key, recover

ONE = Hash(bytes(31) + b"\x01")
JOB = Job(
    request=ONE,
    attempt=1,
    worker=ADDRESS_ZERO,
    route=(),
    profile=HASH_ZERO,
    choice=HASH_ZERO,
    start=0,
    row=0,
    tokens=HASH_ZERO,
    closes_at=10,
)
LEAF = Leaf(
    job=ONE,
    stage=1,
    window=2,
    start=0,
    count=16,
    in_root=HASH_ZERO,
    out_root=HASH_ZERO,
    up_leaf=HASH_ZERO,
    prev_leaf=HASH_ZERO,
    print=HASH_ZERO,
)
PROGRESS = Progress(job=ONE, to=5, tokens=HASH_ZERO, leaves=HASH_ZERO)
RECEIPT = Receipt(
    request=ONE,
    segments=(),
    input_tokens=1,
    output_tokens=1,
    tokens=HASH_ZERO,
    price=1,
    finish=0,
    finished_at=1,
    closes_at=10,
)


@pytest.fixture
def journal(tmp_path: Path) -> Generator[Journal]:
    with Journal(tmp_path / "j.db") as opened:
        yield opened


@pytest.mark.parametrize(
    ("message", "contradiction", "elsewhere"),
    [
        (JOB, replace(JOB, profile=ONE), replace(JOB, attempt=2)),
        (LEAF, replace(LEAF, out_root=ONE), replace(LEAF, window=3)),
        (PROGRESS, replace(PROGRESS, tokens=ONE), replace(PROGRESS, to=6)),
        (RECEIPT, replace(RECEIPT, price=2), replace(RECEIPT, request=HASH_ZERO)),
    ],
)
def test_guard_second_different_message_is_not_safe(
    journal: Journal, message: Job | Leaf | Progress | Receipt, contradiction: Job, elsewhere: Job
) -> None:
    guard = SigningGuard(journal, DOMAIN)

    assert guard.check(message) == Safe(same=False)
    assert SigningGuard(journal, DOMAIN).check(message) == Safe(same=True)
    assert isinstance(guard.check(contradiction), NotSafe)
    assert guard.check(elsewhere) == Safe(same=False)
    assert guard.check(message) == Safe(same=True)


def test_guard_signs_the_same_again_and_refuses_another(journal: Journal) -> None:
    guard, key = SigningGuard(journal, DOMAIN), Key.generate()
    signed = guard.sign(key, LEAF)

    assert guard.sign(key, LEAF) == signed
    assert recover(DOMAIN, LEAF, signed.signature) == key.address
    with pytest.raises(ConflictError, match="a Leaf for the same place"):
        guard.sign(key, replace(LEAF, count=15))
