"""Each method against itself off, on SmolLM2-135M with its real weights; absolute figures stand beside the ratios."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from bench import models
from bench.ours import GREEDY
from tokenizers import Tokenizer

from plait.protocol.ids import HASH_ZERO, Hash, keccak
from plait_node.engine import EngineError, StageEngine, StepInput
from plait_node.engine.local_route import Answer, LocalRequest, LocalRoute

__all__ = ["TARGETS", "run"]

MODEL: Final = "smollm2-135m"
TARGETS: Final[Mapping[str, float]] = {
    "prefix_burst": 1.7,
    "prefix_sequence": 2.2,
    "chunked_prefill_stall": 5.0,
    "chunked_prefill_speed": 0.65,
    "continuous_batching": 0.8,
    "lookup_repetitive": 2.5,
    "lookup_prose": 0.95,
    "int8_vs_best": 1.2,
    "int4_vs_best": 1.6,
}
CHUNK: Final = 64
LONG: Final = 1_500
DEPTH: Final = 10
REPETITIVE: Final = (
    "- red apples, green pears, blue plums and yellow lemons\n"
    "- three hens, two ducks and one goose in the yard behind the old barn\n"
    "- every morning at seven the baker opens the door and lights the oven\n"
)
PROSE: Final = (
    "Tell me a long story about a lighthouse keeper who finds a letter in a bottle.",
    "Explain how vaccines work, in simple words and full sentences.",
    "Describe a walk through a market in a city that you have never seen.",
)
TEXT: Final = (
    "The history of bread is older than the history of writing. People ground wild grain between stones, mixed the "
    "meal with water, and baked it on hot rocks beside the fire. When somebody left the dough out overnight, wild "
    "yeast made it rise, and the loaf that came of it was lighter than any before. From then on bakers kept a piece "
    "of each day's dough for the next, and passed it on to their children together with the mill and the oven."
)


def run(*, threads: int, repeats: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the ratios, and all figures; bf16 lanes unless the method is the weights' type."""
    engine = models.whole_engine(MODEL, "bf16", threads=threads, kv_steps=24_576)
    figures = {
        **_prefix(engine, repeats),
        **_chunked(engine, repeats),
        **_batching(engine, repeats),
        **_lookup(engine, repeats),
        **_weights(engine, threads, repeats),
    }
    ratios = {name: figures[name]["ratio"] for name in TARGETS}
    for name, figure in figures.items():
        print(name, figure, flush=True)
    return ratios, figures


class _Names:
    def __init__(self) -> None:
        self._count = 0

    def __call__(self) -> Hash:
        self._count += 1
        return keccak(b"off and on", self._count.to_bytes(8, "big"))


_name = _Names()


def _request(prompt: Sequence[int], answer: int, *, after: int = 0) -> LocalRequest:
    return LocalRequest(request=_name(), prompt=prompt, max_tokens=answer, sampling=GREEDY, seed=HASH_ZERO, after=after)


def _ids(seed: int, count: int) -> list[int]:
    return np.random.default_rng(seed).integers(1_000, 40_000, count).tolist()


def _timed(work: Callable[[], list[Answer]]) -> tuple[float, list[Answer]]:
    began = time.perf_counter()
    answers = work()
    return time.perf_counter() - began, answers


def _alternating(repeats: int, **works: Callable[[int], float]) -> dict[str, float]:
    """Return the median of each, taken in turns; the first turn is not counted."""
    values: dict[str, list[float]] = {name: [] for name in works}
    for repeat in range(repeats + 1):
        for name, work in works.items():
            values[name].append(work(repeat))
    return {name: statistics.median(found[1:]) for name, found in values.items()}


def _figure(better: float, worse: float, **more: Any) -> dict[str, Any]:
    """Return seconds on and off, and how many times less the method takes."""
    return {"ratio": round(worse / better, 3), "on_s": round(better, 4), "off_s": round(worse, 4), **more}


def _prefix(engine: StageEngine, repeats: int) -> dict[str, Any]:
    route = LocalRoute([engine], profile="bf16", margins=False)

    def burst(methods: Mapping[str, int], salt: int, answer: int, together: int) -> Callable[[int], float]:
        def work(repeat: int) -> float:
            shared = _ids(1_000 * repeat + salt, 400)
            requests = [_request(shared + _ids(99 * repeat + index, 10), answer) for index in range(8)]
            return _timed(lambda: route.run(requests, {**methods, "continuous-batching": together}))[0]

        return work

    cached = {"prefix-cache": 1}
    found: dict[str, Any] = {}
    for title, answer, together in (("prefix_burst", 16, 8), ("prefix_sequence", 1, 1)):
        times = _alternating(repeats, on=burst(cached, 1, answer, together), off=burst({}, 2, answer, together))
        found[title] = _figure(times["on"], times["off"])
    return found


def _chunked(engine: StageEngine, repeats: int) -> dict[str, Any]:
    route = LocalRoute([engine], profile="bf16", margins=False)

    def stall(methods: Mapping[str, int]) -> Callable[[int], float]:
        def work(repeat: int) -> float:
            stream, long = _request(_ids(repeat, 6), 60), _request(_ids(repeat + 50, LONG), 1, after=12)
            answers = route.run([stream, long], {**methods, "continuous-batching": 2})
            return answers[0].longest_gap_s

        return work

    def prefill(methods: Mapping[str, int]) -> Callable[[int], float]:
        return lambda repeat: _timed(lambda: route.run([_request(_ids(repeat + 70, LONG), 1)], methods))[0]

    chunk = {"chunked-prefill": CHUNK}
    gaps = _alternating(repeats, on=stall(chunk), off=stall({}))
    speed = _alternating(repeats, on=prefill(chunk), off=prefill({}))
    return {
        "chunked_prefill_stall": _figure(gaps["on"], gaps["off"], chunk=CHUNK, prompt=LONG),
        "chunked_prefill_speed": _figure(
            speed["on"], speed["off"], chunk=CHUNK, tokens_s_on=round(LONG / speed["on"], 1)
        ),
    }


def _batching(engine: StageEngine, repeats: int) -> dict[str, Any]:
    route = LocalRoute([engine], profile="bf16", margins=False)
    count, answer = 8, 64

    def jobs(repeat: int) -> float:
        """Return seconds a decode pass, as the streams saw it."""
        requests = [_request(_ids(10 * repeat + index, 6 + 5 * index), answer) for index in range(count)]
        answers = route.run(requests, {"continuous-batching": count})
        return statistics.median(gap for each in answers for gap in each.gaps_s)

    def bare(repeat: int) -> float:
        names = [_name() for _ in range(count)]
        for index, job in enumerate(names):
            engine.open(job, 128)
            engine.step_one(job, 0, np.array(_ids(10 * repeat + index, 24)), logits=0)
        times: list[float] = []
        for step in range(answer):
            given = [
                StepInput(job=job, start=24 + step, rows=np.array([500 + step]), logits=1, best=True) for job in names
            ]
            began = time.perf_counter()
            answers = engine.step(given)
            times.append(time.perf_counter() - began)
            if any(isinstance(each, EngineError) for each in answers):
                raise RuntimeError("the bare forward pass failed")
        for job in names:
            engine.close(job)
        return statistics.median(times)

    times = _alternating(repeats, jobs=jobs, bare=bare)
    return {
        "continuous_batching": {
            "ratio": round(times["bare"] / times["jobs"], 3),
            "tokens_s": round(count / times["jobs"], 1),
            "bare_tokens_s": round(count / times["bare"], 1),
        }
    }


def _lookup(engine: StageEngine, repeats: int) -> dict[str, Any]:
    route = LocalRoute([engine], profile="bf16", margins=False)
    encode = Tokenizer.from_str(models.built(MODEL).tokenizer_json.decode()).encode
    repetitive = [4 * REPETITIVE]  # a text that repeats itself, as code, tables and quoted documents do
    prose = [f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n" for text in PROSE]

    def rate(texts: Sequence[str], methods: Mapping[str, int]) -> Callable[[int], float]:
        def work(_: int) -> float:
            answers = [route.run([_request(encode(text).ids, 96)], methods)[0] for text in texts]
            return sum(answer.times[-1] - answer.times[0] for answer in answers) / len(answers)

        return work

    found: dict[str, Any] = {}
    for title, texts in (("lookup_repetitive", repetitive), ("lookup_prose", prose)):
        times = _alternating(repeats, on=rate(texts, {"prompt-lookup": DEPTH}), off=rate(texts, {}))
        answer = route.run([_request(encode(texts[0]).ids, 96)], {"prompt-lookup": DEPTH})[0]
        found[title] = _figure(
            times["on"],
            times["off"],
            depth=DEPTH,
            tokens_s_on=round(95 / times["on"], 1),
            tokens_s_off=round(95 / times["off"], 1),
            proposed=answer.proposed,
            accepted=answer.accepted,
        )
    return found


def _weights(half: StageEngine, threads: int, repeats: int) -> dict[str, Any]:
    exact = models.whole_engine(MODEL, "fp32", threads=threads, kv_steps=1_024)
    int8 = models.whole_engine(MODEL, "int8", threads=threads, kv_steps=1_024)
    int4 = models.whole_engine(MODEL, "int4", threads=threads, kv_steps=1_024)

    def step(engine: StageEngine) -> Callable[[int], float]:
        def work(repeat: int) -> float:
            job = _name()
            engine.open(job, 128)
            engine.step_one(job, 0, np.array(_ids(repeat, 16)), logits=0)
            times: list[float] = []
            for at in range(16, 80):
                began = time.perf_counter()
                engine.step_one(job, at, np.array([500 + at]), best=True)
                times.append(time.perf_counter() - began)
            engine.close(job)
            return statistics.median(times)

        return work

    times = _alternating(repeats, fp32=step(exact), bf16=step(half), int8=step(int8), int4=step(int4))
    best = min(times["fp32"], times["bf16"])
    shown = {f"{name}_ms": round(value * 1e3, 2) for name, value in times.items()}
    return {
        "bf16_vs_fp32": {"ratio": round(times["fp32"] / times["bf16"], 3), **_distance(exact, half)},
        "int8_vs_best": {"ratio": round(best / times["int8"], 3), **shown, **_distance(exact, int8)},
        "int4_vs_best": {"ratio": round(best / times["int4"], 3), **shown, **_distance(exact, int4)},
    }


def _distance(exact: StageEngine, rounded: StageEngine) -> dict[str, float]:
    """Return how far the logits are from fp32's over a text: relative norm, mean KL in nats, and equal best tokens."""
    ids = np.array(Tokenizer.from_str(models.built(MODEL).tokenizer_json.decode()).encode(TEXT).ids)
    found: list[np.ndarray] = []
    for engine in (exact, rounded):
        job = _name()
        engine.open(job, len(ids))
        rows = [engine.step_one(job, at, ids[at : at + 1]).logits for at in range(len(ids))]
        engine.close(job)
        found.append(np.concatenate([row for row in rows if row is not None]).astype(np.float64))
    truth, ours = (logits - logits.max(axis=1, keepdims=True) for logits in found)
    p, q = (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)) for logits in (truth, ours))
    return {
        "logits_relative_distance": round(float(np.linalg.norm(found[1] - found[0]) / np.linalg.norm(found[0])), 5),
        "mean_kl_nats": round(float((np.exp(p) * (p - q)).sum(axis=1).mean()), 6),
        "same_best_token": round(float((found[0].argmax(axis=1) == found[1].argmax(axis=1)).mean()), 4),
    }
