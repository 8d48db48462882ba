"""Explain a choice between all measured candidates: what each should take, which are refused, which is chosen, and why.

By the rule of the live choice (`rule`), over more than a worker may choose: the paper's single methods, and what a
stage's operator sets, stand beside the methods of a job.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Final

from plait.protocol.manifest import FP32_STRICT, Profile
from plait_node.selector.candidates import ALWAYS_ON, CANDIDATES, obstacle
from plait_node.selector.estimates import Estimate, Predicts
from plait_node.selector.facts import Candidate, HardwareFacts, ModelFacts, TaskFacts
from plait_node.selector.online import Corrections
from plait_node.selector.policy import Options
from plait_node.selector.roofline import roofline
from plait_node.selector.rule import Limits, pick

__all__ = ["Bar", "Explanation", "Question", "explain"]

_NO_PREDICTOR: Final = "there is no trained predictor, only arithmetic"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is to be run, where, and what its payer allows; `limits` hold for all requests together."""

    task: TaskFacts
    model: ModelFacts
    hardware: HardwareFacts
    profiles: tuple[Profile, ...] = (FP32_STRICT,)
    limits: Limits = field(default_factory=Limits)
    barred: Mapping[str, str] = field(
        default_factory=dict[str, str], hash=False
    )  # methods, or types of weights, with the reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One candidate and what it should take."""

    candidate: Candidate
    estimate: Estimate
    cost: float  # in the currency of the hardware's price
    refused: str = ""  # why it is not chosen whatever it takes; empty: it may be

    @property
    def title(self) -> str:
        """Return its name."""
        return self.candidate.name

    @property
    def order(self) -> tuple[float, ...]:
        """Return what bars are sorted by: the soonest, and of those expected together what does less."""
        return self.estimate.seconds, len(self.candidate.methods)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A question's answer; `chosen` is None where every candidate is refused."""

    question: Question
    predictor: str  # its hash; empty: seconds are the roofline's
    bars: tuple[Bar, ...]  # those that may be chosen first, the best first of each
    impossible: Mapping[str, str] = field(hash=False)  # candidates that cannot run, with the reason
    chosen: Bar | None
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        task, model, hardware = self.question.task, self.question.model, self.question.hardware
        return {
            "task": asdict(task),
            "model": model.name,
            "hardware": hardware.name,
            "predictor": self.predictor or None,
            "chosen": None if self.chosen is None else self.chosen.title,
            "reason": self.reason,
            "candidates": [_told(each) for each in self.bars],
            "impossible": dict(self.impossible),
        }


def explain(
    question: Question, predictor: Predicts | None, *, digest: str = "", corrections: Corrections | None = None
) -> Explanation:
    """Predict every candidate and choose; without a predictor seconds are the roofline's and the default is chosen.

    `corrections` are a node's factors. Raises:
        OverBudgetError: nothing meets the budget, and the question's limits have it refused.
        HistoryError: a text needs an encoder that is not here.
    """
    hardware, real = question.hardware, question.model.real_weights
    impossible = {name: obstacle(each, hardware, real_weights=real) for name, each in CANDIDATES.items()}
    possible = [each for name, each in CANDIDATES.items() if not impossible[name]]
    estimates = _estimates(question, possible, predictor, corrections or Corrections())
    bars = [_bar(question, each, made) for each, made in zip(possible, estimates, strict=True)]
    chosen, why = _chosen(question, bars, predicted=predictor is not None)
    marked = [_marked(question, each, chosen, predicted=predictor is not None) for each in bars]
    kept = next((new for old, new in zip(bars, marked, strict=True) if old is chosen), None)
    ordered = sorted(marked, key=lambda each: (each is not kept and each.refused != "", each.order))
    return Explanation(
        question=question,
        predictor=digest if predictor is not None else "",
        bars=tuple(ordered),
        impossible={name: reason for name, reason in impossible.items() if reason},
        chosen=kept,
        reason=_reason(question, kept, ordered, why),
    )


def _estimates(
    question: Question, candidates: Sequence[Candidate], predictor: Predicts | None, corrections: Corrections
) -> list[Estimate]:
    task, model, hardware = question.task, question.model, question.hardware
    if predictor is not None:
        found = predictor.predict(task, model, hardware, candidates)
        return [Estimate.of(each).times(corrections.factor(each.candidate.name)) for each in found]
    return [_by_arithmetic(question, each) for each in candidates]


def _by_arithmetic(question: Question, candidate: Candidate) -> Estimate:
    line = roofline(question.task, question.model, question.hardware, candidate)
    seconds = line.seconds
    return Estimate(seconds=seconds, low=seconds, high=seconds, ttft_s=line.ttft_s, tpot_s=line.tpot_s, inside=False)


def _bar(question: Question, candidate: Candidate, estimate: Estimate) -> Bar:
    cost = estimate.cost(question.hardware.price_per_hour)
    return Bar(candidate=candidate, estimate=estimate, cost=cost, refused=_forbidden(question, candidate))


def _forbidden(question: Question, candidate: Candidate) -> str:
    """Return what the node or the payer has against it, whatever it takes."""
    for name in (candidate.weights, *candidate.methods):
        if name in question.barred:
            return f"barred: {question.barred[name]}"
    if any(_under(profile, candidate) for profile in question.profiles):
        return ""
    return f"not under {', '.join(profile.name for profile in question.profiles)}"


def _under(profile: Profile, candidate: Candidate) -> bool:
    """Tell whether a profile's numerics are the candidate's."""
    codecs = {name for name in candidate.methods if name.startswith("codec-")}
    return candidate.weights == profile.weights and codecs <= {f"codec-{profile.decode_codec}"}


def _chosen(question: Question, bars: Sequence[Bar], *, predicted: bool) -> tuple[Bar | None, str]:
    allowed = [each for each in bars if not each.refused]
    if not allowed:
        return None, "nothing that the payer and this node allow can run here"
    usual = partial(_usual, allowed, question.hardware)
    least_gain = Options().least_gain
    if predicted:
        return pick(allowed, question.limits, usual=usual, least_gain=least_gain)
    return pick(allowed, question.limits, usual=usual, least_gain=least_gain, outside=_NO_PREDICTOR)


def _usual(bars: Sequence[Bar], hardware: HardwareFacts, best: Bar) -> Bar | None:
    """Return what engines do anyway with the best one's weights, over the same links."""
    weights = best.candidate.weights
    own = {name: 1 for name in best.candidate.methods if name == weights or name.startswith("codec-")}
    wanted = {**ALWAYS_ON.methods, **own}
    if not hardware.compiler:
        del wanted["compiled"]
    found = (each for each in bars if each.candidate.weights == weights and each.candidate.methods == wanted)
    return next(found, None)


def _marked(question: Question, bar: Bar, chosen: Bar | None, *, predicted: bool) -> Bar:
    """Return a bar with the limit that it breaks; the chosen one may break it too, where nothing keeps it."""
    if bar.refused or bar is chosen:
        return bar
    limits, refused = question.limits, ""
    if not limits.timely(bar):
        refused = f"over the deadline of {limits.seconds:g} s"
    elif not limits.affordable(bar):
        refused = f"over the budget: costs {bar.cost:.3g}"
    elif predicted and not bar.estimate.inside:
        refused = "outside what was measured"
    return replace(bar, refused=refused)


def _reason(question: Question, chosen: Bar | None, bars: Sequence[Bar], why: str) -> str:
    if chosen is None:
        return why
    own, task = chosen.estimate, question.task
    each = "each " if task.batch > 1 else ""
    spread = f" ({seconds(own.low)} to {seconds(own.high)})" if own.low < own.high else ""
    text = f"{chosen.title}: {each}{task.answer_tokens} tokens within {seconds(own.seconds)}{spread}"
    text += f", the first after {seconds(own.ttft_s)}, at a cost of {chosen.cost:.2g}"
    second = next((bar for bar in bars if bar is not chosen and not bar.refused), None)
    if second is not None:
        text += f"; against {seconds(second.estimate.seconds)} by {second.title}"
    return f"{text}; {why}" if why else text


def seconds(value: float) -> str:
    """Return a time with three digits that count, in seconds, or in milliseconds below a tenth of one."""
    if value < 0.1:
        return f"{1_000 * value:.3g} ms"
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f} s"


def _told(bar: Bar) -> dict[str, Any]:
    own = bar.estimate
    return {
        "name": bar.title,
        "weights": bar.candidate.weights,
        "methods": dict(bar.candidate.methods),
        "seconds": own.seconds,
        "seconds_low": own.low,
        "seconds_high": own.high,
        "first_token_s": own.ttft_s,
        "per_token_s": own.tpot_s,
        "cost": bar.cost,
        "inside": own.inside,
        "refused": bar.refused or None,
    }
