"""Tasks to measure with: their sizes, that they differ, that a seed decides them; and shares of repeated runs."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait_node.selector.errors import SelectorError, UnknownTaskError
from plait_node.selector.tasks import KINDS, SOURCES, Ask, asks, overlap, repetition, word_ids

# Fewest and most words of `own`, its instruction included.
SIZES = {
    "chat": (15, 30),
    "code": (115, 165),
    "summarise": (198, 275),
    "shared-context": (12, 22),
    "extract": (150, 215),
    "rewrite": (72, 115),
}
PROGRAM = """
import hashlib
from plait_node.selector.tasks import KINDS, asks
made = [asks(kind, count=8, seed=3) for kind in KINDS]
print(hashlib.sha256(repr(made).encode()).hexdigest())
"""

ids_ = st.lists(st.integers(0, 5), max_size=60)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 8, 32, 256])
def test_asks_of_a_kind_differ_and_have_its_size(kind: str, count: int) -> None:
    made = asks(kind, count=count, seed=7)

    least, most = SIZES[kind]
    assert len({ask.own for ask in made}) == count
    assert all(least <= len(ask.own.split()) <= most for ask in made)
    assert len({ask.shared for ask in made}) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_asks_share_a_text_only_where_the_kind_says_so(kind: str) -> None:
    words = len(asks(kind, count=2, seed=1)[0].shared.split())

    assert 270 <= words <= 345 if kind == "shared-context" else words == 0


@pytest.mark.parametrize("kind", KINDS)
def test_asks_of_other_seeds_have_other_texts(kind: str) -> None:
    one, two = (asks(kind, count=8, seed=seed) for seed in (1, 2))

    assert one != two
    assert len({ask.shared + ask.own for ask in one} & {ask.shared + ask.own for ask in two}) <= 1


@pytest.mark.parametrize("hash_seed", ["0", "1"])
def test_asks_are_the_same_in_every_process(hash_seed: str) -> None:
    here = [asks(kind, count=8, seed=3) for kind in KINDS]
    there = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        check=True,
        capture_output=True,
        text=True,
        timeout=200,
    )

    assert there.stdout.strip() == hashlib.sha256(repr(here).encode()).hexdigest()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("words", [40, 600])
def test_asks_with_words_have_that_length_about(kind: str, words: int) -> None:
    for ask in asks(kind, count=16, seed=5, words=words):
        text = ask.shared or ask.own
        assert 0.85 * words <= len(text.split()) <= 1.25 * words + 25


def test_code_ends_in_the_middle_of_a_function() -> None:
    for ask in asks("code", count=32, seed=4):
        assert ask.own.startswith(("def ", "async def "))
        *_, last = ask.own.splitlines()
        assert last.startswith("    ")
        assert ask.own.count("\n") >= 4


def test_extract_asks_for_lines_that_the_text_has() -> None:
    for ask in asks("extract", count=32, seed=2):
        text, _, wish = ask.own.rpartition("\n\n")
        numbers = [line.partition(":")[0] for line in text.splitlines()]
        wanted = wish.partition("else: ")[2].removesuffix(".").split(", ")
        assert wanted == sorted(set(wanted) & set(numbers), key=int)
        assert wanted


def test_sources_are_named_once_and_come_with_python() -> None:
    assert len({(module, attribute) for _, module, attribute in SOURCES}) == len(SOURCES)
    assert all(module.split(".")[0] in sys.stdlib_module_names | {"pydoc_data"} for _, module, _ in SOURCES)


def test_asks_of_an_unknown_kind_names_those_there_are() -> None:
    with pytest.raises(UnknownTaskError, match="shared-context") as caught:
        asks("poem", count=1, seed=1)
    assert caught.value.kind == "poem"
    assert isinstance(caught.value, SelectorError)


@pytest.mark.parametrize("kind", KINDS)
def test_asks_out_of_range_are_refused(kind: str) -> None:
    for count in (-1, 0, 257):
        with pytest.raises(ValueError, match="1 to 256"):
            asks(kind, count=count, seed=1)
    for words in (0, 39, 2_001):
        with pytest.raises(ValueError, match="40 to 2000"):
            asks(kind, count=1, seed=1, words=words)


@given(ids=ids_)
def test_repetition_is_a_share_and_counts_each_run_seen_before(ids: list[int]) -> None:
    found = sum(any(ids[j : j + 3] == ids[i : i + 3] for j in range(i)) for i in range(len(ids) - 2))

    assert repetition(ids) == (found / len(ids) if ids else 0)
    assert 0 <= repetition(ids) < 1


@given(ids=st.lists(st.integers(), unique=True))
def test_repetition_of_ids_that_differ_is_none(ids: list[int]) -> None:
    assert repetition(ids) == 0


@given(prompt=ids_, answer=ids_)
def test_overlap_is_a_share_and_counts_each_run_of_the_prompt(prompt: list[int], answer: list[int]) -> None:
    both = prompt + answer
    runs = [prompt[at : at + 3] for at in range(len(prompt) - 2)]
    found = sum(both[at - 2 : at + 1] in runs for at in range(max(len(prompt), 2), len(both)))

    assert overlap(prompt, answer) == (found / len(answer) if answer else 0)
    assert 0 <= overlap(prompt, answer) <= 1


@given(prompt=st.lists(st.integers(0, 5), min_size=3, max_size=60))
def test_overlap_of_a_copy_misses_two_tokens_at_most(prompt: list[int]) -> None:
    assert overlap(prompt, prompt) >= (len(prompt) - 2) / len(prompt)
    assert overlap(prompt, [token + 10 for token in prompt]) == 0


def test_shares_of_nothing_are_nothing() -> None:
    assert repetition([]) == overlap([], []) == overlap([1, 2, 3], []) == overlap([], [1, 2, 3]) == 0


def test_shares_of_a_loop_by_hand() -> None:
    assert repetition([1, 2, 3, 1, 2, 3, 4]) == 1 / 7
    assert overlap([1, 2, 3, 4, 1, 2], [3, 4, 5, 2, 3, 4]) == 3 / 6


@given(text=st.text(), vocabulary=st.integers(4, 100_000))
def test_word_ids_are_in_the_vocabulary_and_one_a_word(text: str, vocabulary: int) -> None:
    ids = word_ids(text, vocabulary)

    assert all(3 <= each < vocabulary for each in ids)
    assert word_ids(f"{text} {text}", vocabulary) == ids + ids


def test_word_ids_are_always_the_same() -> None:
    assert word_ids("It's here, here.", 1_000) == [247, 400, 305, 355, 185, 355, 324]


def test_word_ids_without_a_vocabulary_are_refused() -> None:
    with pytest.raises(ValueError, match="more than 3"):
        word_ids("a", 3)


def test_asks_are_data() -> None:
    assert asks("chat", count=1, seed=1) == [Ask(shared="", own=asks("chat", count=1, seed=1)[0].own)]
