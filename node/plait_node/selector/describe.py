"""Say in English what a choice rests on, for an encoder of sentences.

Numbers go into words by buckets, most of them powers of two: requests that differ little have one text, whose vector is
computed once and kept. Left out are the name of a setting, which tells settings apart and nothing else, and prices, on
which no time depends.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from plait_node.selector.facts import Candidate, HardwareFacts, ModelFacts, TaskFacts

__all__ = ["describe_candidate", "describe_hardware", "describe_model", "describe_task"]

_KINDS: Final[Mapping[str, str]] = {
    "chat": "The task is a chat: a person asks an assistant a short question.",
    "code": "The task is about program code: a piece of code and what to do with it.",
    "extract": "The task is to extract facts from a document: the answer quotes it.",
    "rewrite": "The task is to rewrite or translate a paragraph: the answer follows the prompt.",
    "shared-context": "The task is to answer different questions about one long document.",
    "summarise": "The task is to summarise a long document in a few sentences.",
}
_REPEATS: Final = (
    (0.03, "Prompts do not repeat themselves."),
    (0.1, "Prompts repeat themselves a little."),
    (0.25, "Prompts repeat some of their own phrases."),
    (0.5, "Prompts repeat many of their own phrases."),
    (math.inf, "Prompts are mostly repetitions."),
)
_SHARES: Final = ((0.25, "few"), (0.75, "about half"), (0.95, "most"), (math.inf, "all"))
_WEIGHTS: Final[Mapping[str, str]] = {
    "fp32": "Weights are exact, in 32-bit floating point.",
    "bf16": "Weights are rounded to 16-bit brain floating point, half the memory traffic.",
    "int8": "Weights are quantised to 8 bits, a quarter of the memory traffic.",
    "int4": "Weights are quantised to 4 bits, an eighth of the memory traffic.",
}
# In the order in which they are told; those told by the weights' type say nothing.
_METHODS: Final[Mapping[str, str]] = {
    "continuous-batching": "Continuous batching computes the next token of up to {} requests in one pass.",
    "prefix-cache": "A prefix cache reuses the keys and values of a prompt's beginning that was computed before.",
    "chunked-prefill": "Chunked prefill computes long prompts in pieces of {} tokens between other requests' tokens.",
    "compiled": "Decoding runs as code compiled for this model and machine.",
    "prompt-lookup": "Speculative decoding checks up to {} tokens at once, copied from repetitions in the text.",
    "draft-model": "Speculative decoding checks up to {} tokens at once, written ahead by a small draft model.",
    "int8": "",
    "int4": "",
    "codec-bf16": "Hidden states travel between stages in 16 bits.",
    "codec-int8": "Hidden states travel between stages in 8 bits.",
}


def describe_task(task: TaskFacts) -> str:
    """Return sentences about what is asked; where nobody said its kind, about the measured facts alone."""
    kind = _KINDS.get(task.kind, f"The task is of the kind {task.kind}." if task.kind else "")
    came = "One request comes alone." if task.batch <= 1 else f"About {_near(task.batch)} requests come together."
    lengths = f"Prompts have about {_near(task.prompt_tokens)} tokens, answers about {_near(task.answer_tokens)}."
    repeats = _bucket(_REPEATS, task.repetition)
    return _text(kind, came, lengths, _shared(task), repeats)


def describe_model(model: ModelFacts) -> str:
    """Return sentences about a model's family and shape; there are few models, so its counts are exact."""
    heads = f"{model.heads} attention heads over {model.kv_heads} key-value heads"
    return _text(
        f"{model.name} is a language model of the {model.family} family"
        f" with about {_million(model.parameters)} million parameters,"
        f" {_million(model.block_parameters)} million of them in its blocks.",
        f"It has {model.blocks} blocks of width {model.hidden} with {heads}"
        f" and feed-forward layers of width {model.intermediate}.",
        f"Its vocabulary has {model.vocabulary} tokens.",
        "" if model.real_weights else "Its weights are random: what it writes means nothing.",
    )


def describe_hardware(hardware: HardwareFacts) -> str:
    """Return sentences about a machine, what it was measured to do, and the route over it."""
    device = "graphics processor" if hardware.device == "cuda" else "processor"
    return _text(
        f"The model runs on a {device}, {hardware.chip},"
        f" with {_count(hardware.cores, 'core')} and about {_near(hardware.memory_gbytes)} gigabytes of memory.",
        f"A stage computes with {_count(hardware.threads, 'thread')},"
        f" about {_near(hardware.matmul_gflops)} billion operations"
        f" and {_near(hardware.copy_gbytes_s)} gigabytes of memory traffic a second.",
        _route(hardware),
        "Compiled code is available." if hardware.compiler else "No compiled code is available.",
    )


def describe_candidate(candidate: Candidate) -> str:
    """Return sentences about a way to run; its name says nothing, and the order of its methods does not count."""
    known = [_METHODS[name].format(candidate.methods[name]) for name in _METHODS if name in candidate.methods]
    others = [
        f"It uses {name} with amount {candidate.methods[name]}." for name in sorted(candidate.methods.keys() - _METHODS)
    ]
    plain = "" if candidate.methods else "Requests run one after the other, without any acceleration."
    return _text(_WEIGHTS[candidate.weights], plain, *known, *others)


def _shared(task: TaskFacts) -> str:
    if task.shared_tokens <= 0:
        return "They begin differently."
    begin = f"They begin with the same {_near(task.shared_tokens)} tokens"
    if task.warm_tokens <= 0:
        return f"{begin}, which nobody has computed yet."
    return f"{begin}, of which {_bucket(_SHARES, task.warm_tokens / task.shared_tokens)} were computed before."


def _route(hardware: HardwareFacts) -> str:
    if hardware.stages <= 1:
        return "One stage holds the whole model."
    trip = hardware.rtt_s * 1_000
    speed = (
        f"carry about {_near(hardware.bytes_s / 1e6)} megabytes a second" if hardware.bytes_s > 0 else "have no limit"
    )
    far = f"take about {_near(trip)} milliseconds there and back" if trip >= 0.5 else "take no time"
    return f"The model is split over {hardware.stages} stages, whose links {far} and {speed}."


def _near(value: float) -> str:
    """Return the nearest power of two, on the scale of logarithms; below a half, "less than one"."""
    return f"{2 ** round(math.log2(value))}" if value >= 0.5 else "less than one"


def _million(value: int) -> str:
    """Return millions in two digits."""
    return f"{float(f'{value / 1e6:.2g}'):g}"


def _count(value: int, word: str) -> str:
    return f"{value} {word}" if value == 1 else f"{value} {word}s"


def _bucket(words: tuple[tuple[float, str], ...], value: float) -> str:
    return next((word for limit, word in words if value < limit), words[-1][1])


def _text(*sentences: str) -> str:
    return " ".join(sentence for sentence in sentences if sentence)
