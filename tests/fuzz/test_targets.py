"""Whatever comes from a stranger is read or refused by an error that we declare, and leaves no memory behind.

20,000 cases in all, the same in every run; `make fuzz` tries the same targets with a million others.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from tests.fuzz.machine import FindingError, Target, check_memory, fixed, mutated, run_cases
from tests.fuzz.targets import every, shares
from tests.fuzz.wire import LOOP

CASES = 20_000
SEED = 7
_TARGETS = every()
_SHARES = shares(_TARGETS, CASES)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Keep what a thousand refusals log out of the report, and end the loop that targets share."""
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)
    LOOP.close()


def test_targets_get_twenty_thousand_cases_in_all_and_each_its_own_name() -> None:
    assert sum(_SHARES.values()) >= CASES
    assert len(_SHARES) == len(_TARGETS)


@pytest.mark.parametrize("target", _TARGETS, ids=lambda target: target.name)
def test_target_takes_anything_or_refuses_it_by_name(target: Target) -> None:
    try:
        ran = run_cases(target, _SHARES[target.name], seed=SEED)
        assert ran.cases >= _SHARES[target.name]
        # Were nothing accepted, the cases would have ended at the first check.
        assert ran.accepted or target.name == "wire.handshake"
        check_memory(target, ran.kept)
    finally:
        target.close()


def test_failing_target_is_reported_with_its_seed_and_its_smallest_bytes() -> None:
    def run(data: bytes) -> bool:
        return data[2] > 0 if len(data) > 2 else False

    def broken(data: bytes) -> bool:
        if len(data) > 2 and data[2] > 7:
            raise IndexError
        return True

    assert run_cases(Target(name="sound", run=run, seeds=fixed([b"abc"]), share=1), 300, seed=3).cases >= 300
    with pytest.raises(FindingError, match=r"--target broken --bytes 000008") as caught:
        run_cases(Target(name="broken", run=broken, seeds=fixed([b"abc"]), share=1), 300, seed=3)
    assert caught.value.data == b"\0\0\x08"


def test_target_that_keeps_what_it_was_given_is_found_by_its_memory() -> None:
    kept: list[bytes] = []

    def hoard(data: bytes) -> bool:
        kept.append(bytes(10_000))
        return bool(data)

    def grow(data: bytes) -> bool:
        return bool(bytes(5 << 20) and data)

    with pytest.raises(AssertionError, match=r"left .* bytes behind"):
        check_memory(Target(name="hoard", run=hoard, seeds=fixed([b"a"]), share=1), [b"b"] * 30)
    with pytest.raises(AssertionError, match="one case took"):
        check_memory(Target(name="grow", run=grow, seeds=fixed([b"a"]), share=1), [b"b"])


@pytest.mark.parametrize(
    ("edit", "made"),
    [
        (("flip", 0, b"x"), b"`bcd"),
        (("set", 2, b"x"), b"ab\0d"),
        (("over", 1, b"XY"), b"aXYd"),
        (("cut", 2, b"x"), b"ab"),
        (("drop", 1, b"xy"), b"ad"),
        (("insert", 4, b"XY"), b"abcdXY"),
        (("double", 2, b"x"), b"abcdcd"),
        (("join", 2, b"x"), b"ab34"),
    ],
)
def test_edit_changes_bytes_as_it_is_named(edit: tuple[str, int, bytes], made: bytes) -> None:
    assert mutated(b"abcd", b"1234", [edit]) == made
