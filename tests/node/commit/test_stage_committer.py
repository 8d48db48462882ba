from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plait.protocol.checks import check_leaf_chain
from plait.protocol.ids import HASH_ZERO, Address, Hash
from plait.protocol.messages import Leaf
from plait.protocol.typed import Domain, Key, Signed
from plait.protocol.windows import NO_TOKEN, Cut, Window, id_bytes, row_hash, salted_root, window_root
from plait_node.commit import (
    DisagreementError,
    LeafError,
    RowOrderError,
    SignLeaf,
    StageCommitter,
    WindowRoots,
    hash_rows,
    hash_tail_rows,
)

DOMAIN = Domain(chain_id=31_337, channels=Address(b"\x07" * 20))
JOB, SALT = Hash(b"\x01" * 32), b"\x02" * 32
KEYS = [Key.generate(), Key.generate()]
WIDTH = 8


def committer(stage: int, cut: Cut, sign: SignLeaf | None = None) -> StageCommitter:
    sign = sign or partial(KEYS[stage].signed, DOMAIN)
    return StageCommitter(domain=DOMAIN, sign=sign, salt_rows=SALT, job=JOB, stage=stage, cut=cut)


def rows(boundary: int, start: int, count: int) -> bytes:
    return b"".join(bytes([boundary]) + step.to_bytes(WIDTH - 1, "big") for step in range(start, start + count))


def feed(which: StageCommitter, stage: int, start: int, count: int) -> list[Signed[Leaf]]:
    which.add_input(hash_rows(start, rows(stage, start, count), width=WIDTH))
    which.add_output(hash_rows(start, rows(stage + 1, start, count), width=WIDTH))
    return which.sign_ready()


def root(boundary: int, window: int, start: int, end: int) -> Hash:
    hashes = (row_hash(step, rows(boundary, step, 1)) for step in range(start, end))
    return salted_root(SALT, boundary=boundary, window=window, root=window_root(hashes))


@settings(max_examples=60, deadline=None)
@given(prompt=st.integers(1, 60), extra=st.integers(0, 40), chunks=st.lists(st.integers(1, 20), max_size=8))
def test_sign_two_stages_leaves_cover_every_step_and_join(prompt: int, extra: int, chunks: list[int]) -> None:
    end, cut = prompt + extra, Cut(prompt_end=prompt)
    first, second = committer(0, cut), committer(1, cut)
    upper: list[Signed[Leaf]] = []
    lower: list[Signed[Leaf]] = []
    at = 0
    for size in [*chunks, end]:
        count = min(size, end - at)
        if count:
            upper += feed(first, 0, at, count)
            lower += feed(second, 1, at, count)
        at += count
        for leaf in upper[len(second._upstream) :]:
            second.add_upstream(leaf)
        lower += second.sign_ready()
    first.finish(end)
    second.finish(end)
    upper += first.sign_ready()
    for leaf in upper[len(second._upstream) :]:
        second.add_upstream(leaf)
    lower += second.sign_ready()

    assert first.complete
    assert second.complete
    assert first.steps == second.steps == end
    check_joined(upper, lower, cut.windows(end))


def check_joined(upper: list[Signed[Leaf]], lower: list[Signed[Leaf]], windows: list[Window]) -> None:
    assert len(upper) == len(lower) == len(windows)
    for window in windows:
        up, down = upper[window.index], lower[window.index]
        previous = window.index - 1
        for stage, leaf, above in ((0, up, None), (1, down, up)):
            chain: Sequence[Signed[Leaf]] = upper if stage == 0 else lower
            check_leaf_chain(
                DOMAIN,
                leaf.message,
                job=JOB,
                stage=stage,
                window=window,
                upstream=above,
                previous=chain[previous] if previous >= 0 else None,
            )
            assert leaf.signer(DOMAIN) == KEYS[stage].address
        assert up.message.in_root == root(0, window.index, window.start, window.end)
        assert up.message.out_root == root(1, window.index, window.start, window.end)
        assert down.message.out_root == root(2, window.index, window.start, window.end)


def test_sign_without_the_upstream_leaf_waits() -> None:
    second = committer(1, Cut(prompt_end=16))
    assert feed(second, 1, 0, 16) == []


def test_sign_one_received_bit_different_signs_nothing() -> None:
    first, second = committer(0, Cut(prompt_end=16)), committer(1, Cut(prompt_end=16))
    (leaf,) = feed(first, 0, 0, 16)
    tampered = bytearray(rows(1, 0, 16))
    tampered[40] ^= 1
    second.add_input(hash_rows(0, bytes(tampered), width=WIDTH))
    second.add_output(hash_rows(0, rows(2, 0, 16), width=WIDTH))
    second.add_upstream(leaf)
    for _ in range(2):
        with pytest.raises(DisagreementError, match="window 0"):
            second.sign_ready()
    assert second.signed == []


def test_sign_guard_that_refuses_signs_nothing() -> None:
    class RefusedError(Exception):
        pass

    def refuse(_: Leaf) -> Signed[Leaf]:
        raise RefusedError

    first = committer(0, Cut(prompt_end=16), refuse)
    with pytest.raises(RefusedError):
        feed(first, 0, 0, 16)
    assert first.signed == []


@pytest.mark.parametrize(
    "change",
    [
        {"job": Hash(bytes(32))},
        {"stage": 1},
        {"window": 1},
        {"prev_leaf": Hash(b"\x05" * 32)},
        {"print": Hash(b"\x05" * 32)},
    ],
)
def test_add_upstream_leaf_that_does_not_belong_is_refused(change: dict[str, object]) -> None:
    first, second = committer(0, Cut(prompt_end=16)), committer(1, Cut(prompt_end=16))
    (leaf,) = feed(first, 0, 0, 16)
    with pytest.raises(LeafError):
        second.add_upstream(KEYS[0].signed(DOMAIN, replace(leaf.message, **change)))


def test_add_upstream_second_leaf_for_a_window_says_so() -> None:
    first, second = committer(0, Cut(prompt_end=16)), committer(1, Cut(prompt_end=16))
    (leaf,) = feed(first, 0, 0, 16)
    second.add_upstream(leaf)
    other = KEYS[0].signed(DOMAIN, replace(leaf.message, out_root=Hash(b"\x09" * 32)))
    with pytest.raises(LeafError, match="twice"):
        second.add_upstream(other)


def test_sign_upstream_leaf_of_another_cut_is_refused() -> None:
    first, second = committer(0, Cut(prompt_end=10)), committer(1, Cut(prompt_end=16))
    (leaf,) = feed(first, 0, 0, 10)
    feed(second, 1, 0, 16)
    second.add_upstream(leaf)
    second.finish(16)
    with pytest.raises(LeafError, match="other steps"):
        second.sign_ready()


def test_sign_upstream_that_closed_early_waits_for_the_end() -> None:
    first, second = committer(0, Cut(prompt_end=4)), committer(1, Cut(prompt_end=4))
    made = feed(first, 0, 0, 7)
    first.finish(7)
    made += first.sign_ready()
    feed(second, 1, 0, 7)
    for leaf in made:
        second.add_upstream(leaf)
    assert len(second.sign_ready()) == 1
    second.finish(7)
    assert [leaf.message.count for leaf in second.sign_ready()] == [3]
    assert second.complete


def test_finish_before_the_rows_fed_ahead_leaves_them_out() -> None:
    first = committer(0, Cut(prompt_end=4))
    feed(first, 0, 0, 9)
    first.finish(6)
    (leaf,) = first.sign_ready()
    assert (leaf.message.start, leaf.message.count) == (4, 2)
    assert leaf.message.in_root == root(0, 1, 4, 6)


@pytest.mark.parametrize("start", [0, 2, 4])
def test_add_input_out_of_order_is_refused(start: int) -> None:
    first = committer(0, Cut(prompt_end=9))
    first.add_input(hash_rows(0, rows(0, 0, 3), width=WIDTH))
    with pytest.raises(RowOrderError):
        first.add_input(hash_rows(start, rows(0, start, 1), width=WIDTH))


def test_reuse_cached_windows_gives_the_leaves_of_a_computed_job() -> None:
    cut = Cut(prompt_end=40)
    computed, cached = committer(0, cut), committer(0, cut)
    whole = feed(computed, 0, 0, 40)
    assert len(computed.kept) == 2
    cached.reuse(computed.kept)
    early = cached.sign_ready()
    late = feed(cached, 0, 32, 8)
    assert [leaf.message for leaf in [*early, *late]] == [leaf.message for leaf in whole]
    assert len(early) == 2
    assert cached.kept == computed.kept


def test_reuse_lower_stage_still_checks_agreement() -> None:
    cut = Cut(prompt_end=20)
    first, second = committer(0, cut), committer(1, cut)
    for leaf in feed(first, 0, 0, 20):
        second.add_upstream(leaf)
    second.reuse([WindowRoots(in_root=Hash(b"\x08" * 32), out_root=Hash(b"\x09" * 32))])
    with pytest.raises(DisagreementError):
        second.sign_ready()


def test_reuse_of_the_whole_prompt_is_refused() -> None:
    roots = WindowRoots(in_root=HASH_ZERO, out_root=HASH_ZERO)
    with pytest.raises(RowOrderError):
        committer(0, Cut(prompt_end=16)).reuse([roots])


def test_kept_tail_window_forgets_the_token_sampled_at_its_end() -> None:
    tail = committer(0, Cut(prompt_end=16))
    tail.add_input(hash_rows(0, rows(0, 0, 16), width=WIDTH))
    tail.add_output(hash_tail_rows(0, rows(1, 0, 16), width=WIDTH, sampled=[77]))
    (leaf,) = tail.sign_ready()
    none = [row_hash(step, rows(1, step, 1) + id_bytes(NO_TOKEN)) for step in range(16)]
    with_token = [*none[:-1], row_hash(15, rows(1, 15, 1) + id_bytes(77))]
    assert leaf.message.out_root == salted_root(SALT, boundary=1, window=0, root=window_root(with_token))
    assert tail.kept[0].out_root == window_root(none)


@given(start=st.integers(0, 1 << 20), data=st.binary(min_size=8, max_size=80).filter(lambda data: len(data) % 8 == 0))
def test_hash_rows_is_the_protocols_row_hash(start: int, data: bytes) -> None:
    made = hash_rows(start, data, width=8)
    assert list(made.hashes) == [row_hash(start + at // 8, data[at : at + 8]) for at in range(0, len(data), 8)]
    assert made.end == start + len(data) // 8
