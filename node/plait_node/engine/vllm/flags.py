"""plait's methods as flags of vLLM: one table, and a reason for what cannot be mapped."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from plait_node.engine.vllm.errors import FlagError

__all__ = ["METHODS", "SAMPLER", "UNMAPPED", "Amount", "flags"]

Amount = bool | int | str

SAMPLER = "--logits-processors=plait_model.vllm_sampler:PlaitSampler"

# Whatever the methods: no defaults out of the model's folder, and jobs with a price may go first.
_ALWAYS = ("--generation-config=vllm", "--scheduling-policy=priority")
_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def flags(methods: Mapping[str, Amount]) -> list[str]:
    """Return the flags of a server that works by these methods; raise `FlagError` for one that vLLM cannot.

    A server that speculates cannot load plait's sampler: vLLM refuses processors then, and temperature 0 alone is
    served there.
    """
    _check_budget(methods)
    found: list[str] = [*_ALWAYS]
    for method, amount in methods.items():
        if method in UNMAPPED:
            raise FlagError(method, UNMAPPED[method])
        if method not in METHODS:
            raise FlagError(method, f"it is unknown; known are {', '.join(METHODS)}")
        found += METHODS[method](amount)
    return found if methods.get("speculation") else [*found, SAMPLER]


def _prefix_cache(amount: Amount) -> list[str]:
    return ["--enable-prefix-caching" if amount else "--no-enable-prefix-caching"]


def _chunked_prefill(amount: Amount) -> list[str]:
    rows = _count(
        "chunked-prefill", amount, "vLLM always has a budget of rows per pass; give one as long as the context"
    )
    return ["--enable-chunked-prefill", f"--max-num-batched-tokens={rows}"]


def _batching(amount: Amount) -> list[str]:
    return [f"--max-num-seqs={_count('batching', amount, 'give the most jobs in a pass, 1 for none beside another')}"]


def _speculation(amount: Amount) -> list[str]:
    if amount is False or amount == 0:
        return []
    depth = _count("speculation", amount, "give the number of tokens guessed at once")
    guess = {"method": "ngram", "num_speculative_tokens": depth, "prompt_lookup_max": 4, "prompt_lookup_min": 2}
    return [f"--speculative-config={json.dumps(guess)}"]


def _weights(amount: Amount) -> list[str]:
    if amount not in _DTYPES:
        reason = "vLLM quantises no dense layer so while it loads; leave this out and give it a quantised folder"
        raise FlagError("weights", f"{amount}: {reason}")
    return [f"--dtype={_DTYPES[str(amount)]}"]


def _compiled(amount: Amount) -> list[str]:
    return [] if amount else ["--enforce-eager"]


def _count(method: str, amount: Amount, reason: str) -> int:
    if type(amount) is not int or amount < 1:
        raise FlagError(method, f"{amount}: {reason}")
    return amount


def _check_budget(methods: Mapping[str, Amount]) -> None:
    rows, jobs = methods.get("chunked-prefill", 0), methods.get("batching", 0)
    if type(rows) is int and type(jobs) is int and 0 < rows < jobs:
        raise FlagError("chunked-prefill", f"{rows} rows a pass are fewer than its {jobs} jobs, each of which has one")


METHODS: Mapping[str, Callable[[Amount], list[str]]] = {
    "prefix-cache": _prefix_cache,  # True or False
    "chunked-prefill": _chunked_prefill,  # rows in a pass, of all jobs together
    "batching": _batching,  # the most jobs in a pass
    "speculation": _speculation,  # tokens guessed at once by n-grams of prompt and answer, 0 for none
    "weights": _weights,  # "fp32", "bf16" or "fp16"
    "compiled": _compiled,  # True or False
}
UNMAPPED: Mapping[str, str] = {
    "threads": "it is no flag; start the server with VLLM_CPU_OMP_THREADS_BIND, or count its GPUs",
    "draft-model": "a second model needs a manifest of its own, and a route of one stage has one",
    "rows-codec": "no rows leave the machine; a route of one stage has no codec",
    "micro-batching": "there is no second stage to keep busy meanwhile",
    "verified-decode": "a leaf is over ids here; tokens-only promises no rows",
}
