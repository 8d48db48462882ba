"""A predictor that does as it is told, and what to ask it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from plait.protocol.manifest import PROFILES
from plait_node.selector import Asked, Options, Policy, Way
from plait_node.selector.barred import Barred
from plait_node.selector.facts import Candidate, HardwareFacts, ModelFacts, TaskFacts
from plait_node.selector.online import Corrections

MODEL = ModelFacts(
    name="smollm2-135m",
    family="llama",
    real_weights=True,
    blocks=30,
    hidden=576,
    heads=9,
    kv_heads=3,
    intermediate=1_536,
    vocabulary=49_152,
    parameters=134_515_008,
    block_parameters=106_202_880,
)
HARDWARE = HardwareFacts(
    name="test",
    device="cpu",
    chip="test",
    cores=2,
    threads=1,
    stages=1,
    rtt_s=0.001,
    bytes_s=0.0,
    matmul_gflops=90.0,
    copy_gbytes_s=19.0,
    memory_gbytes=16.0,
    compiler=True,
    price_per_hour=3.6,
)
TASK = TaskFacts(kind="", batch=1, prompt_tokens=300, shared_tokens=0, warm_tokens=0, answer_tokens=41, repetition=0.2)
WAY = Way(profile=PROFILES["fp32-strict"], stages=3, step_s=0.1, measured=False)

Cost = Callable[[TaskFacts, HardwareFacts, Candidate], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    candidate: Candidate
    seconds: float
    seconds_low: float
    seconds_high: float
    ttft_s: float
    tpot_s: float
    inside: bool


def seconds_of(task: TaskFacts, hardware: HardwareFacts, candidate: Candidate) -> float:
    """Return seconds: rows at 10 ms, tokens at 100 ms, chunks and guesses save a fifth each, weights their share."""
    reused = task.warm_tokens if "prefix-cache" in candidate.methods else 0
    rows = (task.prompt_tokens - reused) * 0.01 * (0.8 if "chunked-prefill" in candidate.methods else 1.0)
    tokens = task.answer_tokens * 0.1 * (0.8 if "prompt-lookup" in candidate.methods else 1.0)
    return (rows + tokens) * {"fp32": 1.0, "bf16": 0.9, "int8": 0.8, "int4": 0.7}[candidate.weights]


@dataclass(kw_only=True)
class Told:
    """Predicts what `cost` says; `spread` is how far the interval goes in each direction, as a factor."""

    cost: Cost = seconds_of
    spread: float = 1.05
    inside: Callable[[TaskFacts, Candidate], bool] = lambda _, __: True
    asked: list[str] = field(default_factory=list)

    def predict(
        self, task: TaskFacts, model: ModelFacts, hardware: HardwareFacts, candidates: Sequence[Candidate]
    ) -> list[Forecast]:
        self.asked += [each.name for each in candidates]
        return [self._of(task, hardware, each) for each in candidates]

    def _of(self, task: TaskFacts, hardware: HardwareFacts, candidate: Candidate) -> Forecast:
        seconds = self.cost(task, hardware, candidate)
        return Forecast(
            candidate=candidate,
            seconds=seconds,
            seconds_low=seconds / self.spread,
            seconds_high=seconds * self.spread,
            ttft_s=seconds / 2,
            tpot_s=seconds / 2 / max(1, task.answer_tokens - 1),
            inside=self.inside(task, candidate),
        )


def policy(
    predictor: Told | None = None,
    *,
    corrections: Corrections | None = None,
    barred: Barred | None = None,
    explore: float = 0.0,
    **options: object,
) -> Policy:
    made = replace(Options(explore=explore), **options)  # type: ignore[arg-type]
    return Policy(
        model=MODEL,
        hardware=HARDWARE,
        predictor=predictor or Told(),
        corrections=corrections,
        barred=barred,
        options=made,
    )


def asked(*ways: Way, task: TaskFacts = TASK, digest: bytes = b"job", limit_s: float = 600.0) -> Asked:
    return Asked(digest=digest, task=task, ways=ways or (WAY,), limit_s=limit_s)
