"""Which methods there are, and which choices of them can run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait_node.engine.errors import EngineError
from plait_node.engine.methods import METHODS, Facts, MethodRefusedError, check, method_of
from plait_node.engine.methods.compiled import find_compiler, wants_compiled
from plait_node.engine.methods.weight_only import lane_weights
from plait_node.engine.methods.wire_codec import codec_pair

NAMES = [
    "continuous-batching",
    "prefix-cache",
    "chunked-prefill",
    "prompt-lookup",
    "draft-model",
    "int8",
    "int4",
    "compiled",
    "codec-bf16",
    "codec-int8",
]
ALL = Facts(compiler="/usr/bin/g++", fused=frozenset({"int8", "int4"}), profile="packed", draft_model=True)
# Every rule again, as pairs of names that exclude each other and names that a fact excludes.
APART = [{"int8", "int4"}, {"prompt-lookup", "draft-model"}, {"codec-bf16", "codec-int8"}]
WITHOUT = {
    "no compiler": (replace(ALL, compiler=None), {"compiled"}),
    "no fused kernel": (replace(ALL, fused=frozenset()), {"int4"}),
    "strict": (replace(ALL, profile="fp32-strict"), {"int8", "int4", "codec-bf16", "codec-int8"}),
    "whole model": (replace(ALL, whole_model=True), {"codec-bf16", "codec-int8"}),
    "no draft model": (replace(ALL, draft_model=False), {"draft-model"}),
    "fp32 lane": (replace(ALL, weights="fp32"), {"int8", "int4"}),
    "int8 lane": (replace(ALL, weights="int8"), {"int4"}),
    "small batch": (replace(ALL, batch=15), {"continuous-batching"}),
    "everything": (ALL, set[str]()),
}


def on(names: set[str]) -> dict[str, int]:
    """Return each method with its default amount."""
    return {name: bounds.default if (bounds := METHODS[name].amount) else 1 for name in names}


def test_registry_has_each_method_under_its_name() -> None:
    assert list(METHODS) == NAMES
    assert [method_of(name).name for name in NAMES] == NAMES
    assert len({method.title for method in METHODS.values()}) == len(NAMES)
    assert all("\n" not in method.title for method in METHODS.values())


def test_amounts_have_their_default_in_range() -> None:
    for amount in (method.amount for method in METHODS.values() if method.amount):
        assert amount.least <= amount.default <= amount.most


@given(chosen=st.sets(st.sampled_from(NAMES)), without=st.sampled_from(list(WITHOUT)))
def test_check_refuses_what_cannot_run_and_nothing_else(chosen: set[str], without: str) -> None:
    facts, impossible = WITHOUT[without]
    runs = not chosen & impossible and not any(pair <= chosen for pair in APART)
    if runs:
        check(on(chosen), facts)
        return
    with pytest.raises(MethodRefusedError) as caught:
        check(on(chosen), facts)
    assert caught.value.name in chosen
    assert caught.value.reason in str(caught.value)


def test_check_of_an_unknown_method_names_those_there_are() -> None:
    with pytest.raises(MethodRefusedError, match="prefix-cache"):
        check({"magic": 1}, ALL)
    with pytest.raises(EngineError):
        method_of("magic")


@pytest.mark.parametrize("name", NAMES)
def test_check_of_an_amount_out_of_range_says_the_range(name: str) -> None:
    bounds = METHODS[name].amount
    for amount in (bounds.least - 1, bounds.most + 1) if bounds else (0, 2):
        with pytest.raises(MethodRefusedError, match=str(bounds.least if bounds else 1)):
            check({name: amount}, ALL)
    for amount in (bounds.least, bounds.most) if bounds else (1,):
        check({name: amount}, ALL)


def test_check_of_a_chunk_that_is_no_whole_window_is_refused() -> None:
    with pytest.raises(MethodRefusedError, match="multiple of 16"):
        check({"chunked-prefill": 100}, ALL)


def test_lane_of_a_choice_has_its_weights_codecs_and_compilation() -> None:
    assert [lane_weights(on(set(names))) for names in ([], ["int8"], ["int4"])] == ["fp32", "int8", "int4"]
    assert [codec_pair(on(set(names))).decode for names in ([], ["codec-bf16"], ["codec-int8"])] == [
        "fp32",
        "bf16",
        "int8",
    ]
    assert wants_compiled({"compiled": 1})
    assert not wants_compiled({"int8": 1})


def test_find_compiler_takes_the_first_that_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("clang++", "mine"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert find_compiler() == str(tmp_path / "clang++")

    monkeypatch.setenv("CXX", "mine")
    assert find_compiler() == str(tmp_path / "mine")

    monkeypatch.setenv("PATH", "")
    assert find_compiler() is None
