"""What a candidate should take by arithmetic: the roofline, a prior that knows rates and no measured cell.

A pass takes the sum of its products and of reading the weights and keys, at the machine's measured rates times what a
lane's work really takes of them (`rates`: by hand, or fitted). Besides, each block costs some starting, each row some
hashing, and each pass one round of the ring. What engines do beyond that (caches, packing, waiting, guesses that are
right) is left to learn. The rates by hand are round numbers from bench/NOTES.md and from the first rows measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

from plait.protocol.windows import WINDOW_STEPS
from plait_node.selector.facts import Candidate, HardwareFacts, ModelFacts, TaskFacts
from plait_node.selector.rates import BY_HAND, Rates, lane

__all__ = ["Roofline", "roofline"]

BYTES: Final = {"fp32": 4.0, "bf16": 2.0, "int8": 1.0625, "int4": 0.5625}  # a weight, scales included
_CODED: Final = {"codec-bf16": 2.0, "codec-int8": 1.0625}  # bytes of a value on a link, where it is not fp32
_ROW_COST: Final = 0.12  # what one row more costs where proposals are checked, in passes: as look-up reckons
# The draft is the model itself in int4, whole beside the driver: so it was measured.
_DRAFT: Final = Candidate(name="draft", weights="int4", methods={"compiled": 1})


@dataclass(frozen=True, slots=True, kw_only=True)
class Roofline:
    """Seconds of all requests together, and of what they are made of."""

    prefill_s: float  # computing prompts
    decode_s: float  # computing further tokens, proposing included
    link_s: float  # all passes' round trips and bytes
    seconds: float  # the sum of the three: until the last token is there
    ttft_s: float  # mean over the requests
    tpot_s: float  # between two tokens of one request
    prompt_rows: float  # computed, of all requests
    prompt_passes: float
    decode_passes: float
    gain: float  # expected tokens a request and pass; 1 without proposals


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pass:
    """What a pass takes: computing, and going round the ring."""

    computed_s: float
    link_s: float

    @property
    def seconds(self) -> float:
        return self.computed_s + self.link_s


@dataclass(frozen=True, slots=True, kw_only=True)
class _Given:
    task: TaskFacts
    model: ModelFacts
    hardware: HardwareFacts
    candidate: Candidate
    rates: Rates


def roofline(
    task: TaskFacts, model: ModelFacts, hardware: HardwareFacts, candidate: Candidate, rates: Rates | None = None
) -> Roofline:
    """Return seconds for one candidate, by its device's rates or those by hand; nothing is stored or drawn."""
    chosen = rates or BY_HAND[hardware.device]
    given = _Given(task=task, model=model, hardware=hardware, candidate=candidate, rates=chosen)
    if candidate.methods.get("continuous-batching", 1) > 1 and task.batch > 1:
        return _together(given)
    return _one_by_one(given)


def _one_by_one(given: _Given) -> Roofline:
    """Each request waits for all before it; the first may find less in the cache than the others."""
    task = given.task
    first, later = (_prompt_rows(given, others=others) for others in (False, True))
    depth, gain = _speculation(given)
    step = _decode_pass(given, streams=1, depth=depth)
    steps = _steps(task, gain)
    prompts = [(first, 1), (later, task.batch - 1)]
    passes = [(_prefill(given, rows, requests=1), count) for rows, count in prompts]
    prefill = sum(count * one.computed_s for (_, one), count in passes)
    links = sum(count * one.link_s for (_, one), count in passes) + task.batch * steps * step.link_s
    decode = task.batch * steps * step.computed_s + _draft_prompts(given)
    # Of n requests the mean one comes after (n - 1) / 2 others.
    waited = (task.batch - 1) / 2 * (passes[1][0][1].seconds + steps * step.seconds)
    own = sum(count * one.seconds for (_, one), count in passes) / task.batch
    return Roofline(
        prefill_s=prefill,
        decode_s=decode,
        link_s=links,
        seconds=prefill + decode + links,
        ttft_s=own + waited,
        tpot_s=step.seconds / gain,
        prompt_rows=sum(rows * count for rows, count in prompts),
        prompt_passes=sum(number * count for (number, _), count in passes),
        decode_passes=task.batch * steps,
        gain=gain,
    )


def _together(given: _Given) -> Roofline:
    """Prompts first, then all requests' tokens; in chunks, early requests have tokens while late ones wait."""
    task, methods = given.task, given.candidate.methods
    first, later = (_prompt_rows(given, others=others) for others in (False, True))
    rows = first + (task.batch - 1) * later
    passes, prefill = _prefill(given, rows, requests=task.batch)
    if "prefix-cache" in methods and later < first and "chunked-prefill" not in methods:
        # Whoever shares a beginning waits for it.
        passes, prefill = _joined(
            _prefill(given, first, requests=1), _prefill(given, rows - first, requests=task.batch)
        )
    depth, gain = _speculation(given)
    steps = _steps(task, gain)
    # The mean request has had half of the chunks' passes for its tokens; the last one has had none.
    early = min(steps, (passes - 1) / 2) if "chunked-prefill" in methods else 0.0
    streams = max(1.0, task.batch * (1 - early / steps)) if steps else 1.0
    step = _decode_pass(given, streams=streams, depth=depth)
    wait = prefill.seconds * ((1 + 1 / task.batch) / 2 if passes >= 2 else 1.0)
    links = prefill.link_s + steps * step.link_s
    decode = steps * step.computed_s + _draft_prompts(given)
    return Roofline(
        prefill_s=prefill.computed_s,
        decode_s=decode,
        link_s=links,
        seconds=prefill.computed_s + decode + links,
        ttft_s=wait,
        tpot_s=step.seconds / gain,
        prompt_rows=rows,
        prompt_passes=passes,
        decode_passes=steps,
        gain=gain,
    )


def _joined(one: tuple[float, _Pass], other: tuple[float, _Pass]) -> tuple[float, _Pass]:
    (first, early), (second, late) = one, other
    both = _Pass(computed_s=early.computed_s + late.computed_s, link_s=early.link_s + late.link_s)
    return first + second, both


def _steps(task: TaskFacts, gain: float) -> float:
    """Return passes after the one that gives the first token."""
    return max(0, task.answer_tokens - 1) / gain


def _prompt_rows(given: _Given, *, others: bool) -> float:
    """Return rows of one prompt to compute; at least one, and only whole windows come from a cache."""
    task = given.task
    if "prefix-cache" not in given.candidate.methods:
        return max(1.0, task.prompt_tokens)
    known = max(task.shared_tokens, task.warm_tokens) if others else task.warm_tokens
    return max(1.0, task.prompt_tokens - known // WINDOW_STEPS * WINDOW_STEPS)


def _speculation(given: _Given) -> tuple[float, float]:
    """Return how many tokens are proposed a pass and the tokens that a pass then gives.

    Look-up proposes as many as pay, none where none does; a draft always all.
    """
    methods, task = given.candidate.methods, given.task
    if depth := methods.get("draft-model", 0):
        return float(depth), _expected(given.rates.draft_right, depth)
    if depth := methods.get("prompt-lookup", 0):
        right = min(0.9, 0.05 + 1.5 * task.repetition)
        found = [(_expected(right, count) / (1 + _ROW_COST * count), count) for count in range(depth + 1)]
        best = max(found)[1]
        return float(best), _expected(right, best)
    return 0.0, 1.0


def _expected(right: float, depth: int) -> float:
    return (1 - right ** (depth + 1)) / (1 - right)


def _prefill(given: _Given, rows: float, *, requests: int) -> tuple[float, _Pass]:
    """Return the number of passes for so many prompt rows, and what they take together."""
    budget = given.candidate.methods.get("chunked-prefill")
    passes = float(math.ceil(rows / budget)) if budget else 1.0
    one = _pass(given, rows=rows / passes, heads=requests / passes, context=given.task.prompt_tokens / 2)
    return passes, _Pass(computed_s=passes * one.computed_s, link_s=passes * one.link_s)


def _decode_pass(given: _Given, *, streams: float, depth: float) -> _Pass:
    context = given.task.prompt_tokens + given.task.answer_tokens / 2
    rows = streams * (1 + depth)
    one = _pass(given, rows=rows, heads=rows, context=context, streams=streams)
    if "draft-model" not in given.candidate.methods:
        return one
    # Each job's draft goes by itself, one token a pass.
    draft = replace(given, candidate=_DRAFT)
    alone = _pass(draft, rows=1, heads=1, context=context)
    return _Pass(computed_s=one.computed_s + depth * streams * alone.computed_s, link_s=one.link_s)


def _draft_prompts(given: _Given) -> float:
    """Return what the draft takes to read all prompts: each by itself, and it shares no cache."""
    if "draft-model" not in given.candidate.methods:
        return 0.0
    task, draft = given.task, replace(given, candidate=_DRAFT)
    return task.batch * _pass(draft, rows=task.prompt_tokens, heads=1, context=task.prompt_tokens / 2).computed_s


def _pass(given: _Given, *, rows: float, heads: float, context: float, streams: float = 1.0) -> _Pass:
    """Return what `rows` through all blocks and `heads` of them through the head take, each over `context` keys."""
    model, hardware, candidate, rates = given.model, given.hardware, given.candidate, given.rates.values
    own = lane(candidate)
    byte_s, product_s = 1e-9 / hardware.copy_gbytes_s, 1e-9 / hardware.matmul_gflops
    head = model.hidden * model.vocabulary
    keys = 8 * model.blocks * model.kv_heads * (model.hidden // model.heads) * context * streams
    computed = (
        rates[f"read-{own}"] * byte_s * (BYTES[candidate.weights] * model.block_parameters + keys)
        + rates[f"head-{own}"] * byte_s * BYTES[candidate.weights] * head
        + rates[f"product-{own}"] * product_s * 2 * (rows * model.block_parameters + heads * head)
        + rates["attention"] * product_s * 4 * rows * context * model.hidden * model.blocks
        + rates["start" if "compiled" in candidate.methods else "start-plain"] * model.blocks
        + rates["row"] * rows
    )
    value = next((_CODED[name] for name in candidate.methods if name in _CODED), 4.0)
    sent = value * rows * model.hidden * (hardware.stages - 1)
    carried = sent / hardware.bytes_s if hardware.bytes_s else 0.0
    return _Pass(computed_s=computed, link_s=(hardware.stages + 1) * hardware.rtt_s / 2 + carried)
