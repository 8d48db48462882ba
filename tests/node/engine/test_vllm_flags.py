"""The table of methods and flags."""

from __future__ import annotations

import json

import pytest

from plait_node.engine.vllm.errors import FlagError
from plait_node.engine.vllm.flags import METHODS, SAMPLER, UNMAPPED, Amount, flags

ALWAYS = ["--generation-config=vllm", "--scheduling-policy=priority"]


@pytest.mark.parametrize(
    ("methods", "wanted"),
    [
        ({}, []),
        ({"prefix-cache": True}, ["--enable-prefix-caching"]),
        ({"prefix-cache": False}, ["--no-enable-prefix-caching"]),
        ({"chunked-prefill": 128}, ["--enable-chunked-prefill", "--max-num-batched-tokens=128"]),
        ({"batching": 8}, ["--max-num-seqs=8"]),
        ({"speculation": 0}, []),
        ({"weights": "fp32", "compiled": False}, ["--dtype=float32", "--enforce-eager"]),
        ({"weights": "bf16", "compiled": True}, ["--dtype=bfloat16"]),
    ],
)
def test_flags_of_methods(methods: dict[str, Amount], wanted: list[str]) -> None:
    assert flags(methods) == [*ALWAYS, *wanted, SAMPLER]


def test_speculation_leaves_the_sampler_out() -> None:
    *always, speculation = flags({"speculation": 4})

    assert always == ALWAYS
    name, value = speculation.split("=", 1)
    assert name == "--speculative-config"
    assert json.loads(value)["num_speculative_tokens"] == 4


@pytest.mark.parametrize(
    ("methods", "reason"),
    [
        ({"chunked-prefill": 0}, "budget of rows"),
        ({"chunked-prefill": True}, "budget of rows"),
        ({"chunked-prefill": 4, "batching": 8}, "fewer than its 8 jobs"),
        ({"batching": "many"}, "most jobs"),
        ({"speculation": -1}, "guessed at once"),
        ({"weights": "int4"}, "quantised folder"),
        ({"magic": 1}, "unknown; known are prefix-cache"),
        *(({method: 1}, reason) for method, reason in UNMAPPED.items()),
    ],
)
def test_what_cannot_be_mapped_is_refused_with_a_reason(methods: dict[str, Amount], reason: str) -> None:
    with pytest.raises(FlagError, match=reason):
        flags(methods)


def test_no_method_is_both_mapped_and_refused() -> None:
    assert not METHODS.keys() & UNMAPPED.keys()
