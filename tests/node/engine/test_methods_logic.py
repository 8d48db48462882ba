"""What single methods do: chunks, prefix keys, proposals, and when proposing stops."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.node.engine.small import BLOCKS, VOCABULARY, model, prompt

from plait.protocol.ids import keccak
from plait.protocol.windows import first_lineage, id_bytes, lineage, row_hash, window_root
from plait_node.engine.methods.acceptance import Acceptance
from plait_node.engine.methods.chunked_prefill import chunk, chunks
from plait_node.engine.methods.continuous_batching import jobs_to_start
from plait_node.engine.methods.draft_model import DraftModel
from plait_node.engine.methods.prefix_cache import prefix_keys, salted_lineage, window_roots
from plait_node.engine.methods.prompt_lookup import PromptLookup

JOB = keccak(b"draft")


# Continuous batching and chunks


@given(st.integers(0, 9), st.integers(1, 9), st.lists(st.integers(1, 50), max_size=9), st.integers(0, 200))
def test_jobs_to_start_are_the_most_that_fit_in_order(running: int, most: int, rooms: list[int], free: int) -> None:
    count = jobs_to_start(running=running, most=most, rooms=rooms, free=free)

    assert sum(rooms[:count]) <= free
    assert not count or running + count <= most
    assert count == len(rooms) or running + count >= most or sum(rooms[: count + 1]) > free


@given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 80))
def test_chunk_ends_at_a_window_or_at_the_end(start: int, length: int, budget: int) -> None:
    count = chunk(start, start + length, budget)

    assert 0 <= count <= min(length, budget)
    assert count in (0, length) or (start + count) % 16 == 0
    assert count or not length or budget < 16  # 16 rows always reach the next window's end


@given(st.lists(st.tuples(st.integers(0, 90), st.integers(1, 90)), max_size=6), st.integers(1, 8))
def test_chunks_of_passes_cover_every_prompt(spans: list[tuple[int, int]], windows: int) -> None:
    pending = [(start, start + count) for start, count in spans]
    passes = 0
    while any(start < end for start, end in pending):
        counts = chunks(pending, 16 * windows)
        assert sum(counts) <= 16 * windows
        pending = [(start + count, end) for (start, end), count in zip(pending, counts, strict=True)]
        passes += 1
    assert passes <= sum(count for _, count in spans)


# Prefix keys


@pytest.mark.parametrize("length", [1, 15, 16, 17, 32, 33, 100])
def test_prefix_keys_cover_whole_windows_and_leave_a_row(length: int) -> None:
    ids = prompt(length)
    first = salted_lineage(JOB, first_block=3, profile=JOB, salt=b"payer")
    keys = prefix_keys(first, window_roots(ids))

    expected = keccak(first_lineage(JOB, first_block=3, profile=JOB), b"payer")
    for index, key in enumerate(keys):
        steps = range(16 * index, 16 * index + 16)
        expected = lineage(expected, window_root(row_hash(step, id_bytes(ids[step])) for step in steps))
        assert key == expected
    assert len(keys) == (length - 1) // 16


def test_prefix_keys_differ_by_salt_block_and_any_earlier_window() -> None:
    ids = prompt(40)
    firsts = [
        salted_lineage(JOB, first_block=block, profile=JOB, salt=salt)
        for block, salt in ((0, b"a"), (0, b"b"), (1, b"a"))
    ]
    texts = (ids, (ids[0] ^ 1, *ids[1:]))

    assert len({prefix_keys(first, window_roots(text))[1] for first in firsts for text in texts}) == 6


# Prompt look-up


def restated(ids: Sequence[int], depth: int, longest: int, shortest: int) -> list[int]:
    """Find the words again by looking at every place, the last first."""
    ends = [
        end
        for length in range(min(longest, len(ids) - 1), shortest - 1, -1)
        for end in range(len(ids) - 1, length - 1, -1)
        if list(ids[end - length : end]) == list(ids[-length:])
    ]
    text = list(ids)
    while ends and len(text) < len(ids) + depth:
        text.append(text[ends[0] + len(text) - len(ids)])
    return text[len(ids) :]


class Always(Acceptance):
    def depth(self, most: int) -> int:
        return most


def eager(longest: int, shortest: int) -> PromptLookup:
    made = PromptLookup(longest=longest, shortest=shortest)
    made._rates = {length: Always(row_cost=0.0) for length in made._rates}
    return made


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=60),
    st.integers(1, 60),
    st.integers(1, 5),
    st.integers(1, 2),
    st.lists(st.integers(1, 7), min_size=1),
)
def test_propose_is_what_a_search_of_the_whole_text_finds(
    text: list[int], first: int, depth: int, shortest: int, steps: list[int]
) -> None:
    lookup = eager(4, shortest)
    at = min(first, len(text))
    for step in [*steps, len(text)]:
        assert lookup.propose(text[:at], depth) == restated(text[:at], depth, 4, shortest)
        at = min(at + step, len(text))


def test_propose_of_a_circle_goes_round() -> None:
    assert eager(3, 2).propose([7, 1, 2, 3, 1, 2], 7) == [3, 1, 2, 3, 1, 2, 3]


@pytest.mark.parametrize("told", [False, True])
def test_propose_learns_when_told_and_when_not(told: bool) -> None:
    lookup, text = PromptLookup(), [1, 2, 3, 4] * 4
    depths: list[int] = []
    for turn in range(80):
        proposed = lookup.propose(text, 8)
        depths.append(len(proposed))
        comes = [1, 2, 3, 4] * 2 if turn < 20 else [900 + turn, 1, 2, 3, 4, 1, 2, 3]
        right = next((index for index, token in enumerate(proposed) if token != comes[index]), len(proposed))
        if told and proposed:
            lookup.accepted(len(proposed), right)
        text += comes

    assert depths[19] == 8
    assert sum(depths[-16:]) == 1  # the probe


def gain(words: Iterator[list[int]], row_cost: float, *, depth: int = 10) -> float:
    """Return tokens per time against plain decoding, if a pass costs 1 and each more row `row_cost`."""
    lookup, ids, spent, made = PromptLookup(), [0], 0.0, 0
    for text in words:
        at = 0
        while at < len(text):
            proposed = lookup.propose(ids, min(depth, len(text) - at - 1))
            right = 0
            while right < len(proposed) and proposed[right] == text[at + right]:
                right += 1
            if proposed:
                lookup.accepted(len(proposed), right)
            spent += 1 + row_cost * len(proposed)
            ids += text[at : at + right + 1]
            made += len(text[at : at + right + 1])
            at += right + 1
    return made / spent


def prose(seed: int) -> Iterator[list[int]]:
    """Yield a text whose words follow each other as by chance, often the frequent ones."""
    source = random.Random(seed)
    yield [min(int(source.paretovariate(0.7)), 2_000) for _ in range(600)]


def repetitive(seed: int) -> Iterator[list[int]]:
    source = random.Random(seed)
    line = [source.randrange(9_000) for _ in range(30)]
    yield [source.randrange(9_000) if source.random() < 0.02 else token for _ in range(20) for token in line]


@pytest.mark.parametrize("row_cost", [0.05, 0.1, 0.15])
def test_prompt_lookup_pays_where_text_repeats_and_costs_little_where_not(row_cost: float) -> None:
    for seed in range(5):
        assert gain(repetitive(seed), row_cost) >= 2.5
        assert gain(prose(seed), row_cost) >= 0.97


@given(st.floats(0.0, 1.0), st.integers(1, 12))
def test_acceptance_proposes_the_depth_with_the_most_tokens_per_time(rate: float, most: int) -> None:
    known = Acceptance(row_cost=0.1, right=rate * 100, tried=100.0)

    def per_time(depth: int) -> float:
        return sum(rate**index for index in range(depth + 1)) / (1 + 0.1 * depth)

    chosen = known.depth(most)

    assert chosen <= most
    assert per_time(chosen) >= max(map(per_time, range(most + 1))) - 0.031


def test_acceptance_that_does_not_pay_probes_seldom_and_recovers() -> None:
    rate = Acceptance(row_cost=0.1)
    for _ in range(30):
        rate.add(1, 0)

    depths = [rate.depth(8) for _ in range(64)]
    assert sum(depths) == 4

    for _ in range(20):
        rate.add(1, 1)
    assert rate.depth(8) > 4


# Draft model


def greedy(ids: Sequence[int], count: int) -> list[int]:
    engine, text = model(0.2).engine(0, BLOCKS), list(ids)
    engine.open(JOB, 128)
    at = 0
    while len(text) < len(ids) + count:
        logits = engine.step_one(JOB, at, np.array(text[at:], dtype=np.int64)).logits
        assert logits is not None
        at = len(text)
        text.append(int(logits[-1].argmax()))
    return text[len(ids) :]


def test_draft_proposes_its_greedy_continuation_after_any_acceptance() -> None:
    engine = model(0.2).engine(0, BLOCKS)
    draft, text = DraftModel(engine, JOB, room=128), list(prompt(17))
    source = random.Random(0)

    for right in (4, 0, 2, 4, 1, 3):
        proposed = draft.propose(text, 4)
        assert proposed == greedy(text, 4)
        draft.accepted(4, right)
        text += [*proposed[:right], source.randrange(3, VOCABULARY)]
    assert draft.propose(text, 4) == draft.propose(text, 4)

    draft.close()
    assert engine.free_steps == 1_024


def test_draft_at_the_end_of_its_room_proposes_less() -> None:
    draft = DraftModel(model(0.2).engine(0, BLOCKS), JOB, room=20)

    assert len(draft.propose(prompt(17), 9)) == 4
    assert len(draft.propose(prompt(20), 9)) == 1
    assert draft.propose(prompt(21), 9) == []


def test_draft_without_a_head_says_so() -> None:
    with pytest.raises(ValueError, match="all blocks"):
        DraftModel(model().engine(0, 1), JOB, room=20).propose([5], 1)
