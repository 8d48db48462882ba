"""Choose method and route for a job: predict each pair, drop what misses the limits, take the best, say why.

The rule. Among the pairs that meet deadline and budget and lie inside what was measured, the one expected to be
complete first is the best. The measured default of its route is taken in its place when all of them or the default lie
outside, or when the best should save less than `Options.least_gain` of the default's time. For a small share of jobs,
drawn from the request's hash, another pair inside that is expected within a tenth of the best is tried, where the
deadline leaves twice the time that it may take. What the operator pinned is taken whatever is expected of it, over the
route that it is expected to be complete on first.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Literal

from plait.protocol.choice import ChoiceNote
from plait.protocol.ids import keccak
from plait_node.selector.barred import Barred
from plait_node.selector.combinations import Combination, combinations, default, lane_of, runnable, stands_for
from plait_node.selector.estimates import Estimate, Predicts
from plait_node.selector.facts import Candidate, HardwareFacts, ModelFacts, TaskFacts
from plait_node.selector.observe import Way, hardware_of, warmed
from plait_node.selector.online import Corrections
from plait_node.selector.rule import Limits, pick

__all__ = ["Asked", "Choice", "Options", "Policy", "Trial"]

_MOST_SCALE: Final = 8.0  # announced step times are hints: they move a prediction by no more
_ROW_SHARE: Final = 0.06  # what a prompt's row takes, in decode steps: where nothing better is known
_SHOWN: Final = 3  # pairs whose predictions stand in the note beside the chosen one's

_PINNED: Final = "pinned by the operator"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How bold a node chooses; `budget` is what the machines of one job may cost, in the currency of their prices."""

    explore: float = 0.02  # share of jobs
    near: float = 0.10  # how much longer than the best an explored pair may be expected to take
    least_gain: float = 0.02  # of the default's time: for less, it is not left
    budget: float | None = None
    over_budget: Literal["offer", "refuse"] = "offer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A job, the routes that it may take (at least one), and the seconds until its answer must be complete."""

    digest: bytes  # the request's
    task: TaskFacts  # without a warm prefix: each way has its own
    ways: tuple[Way, ...]
    limit_s: float = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What a choice counts on, to be compared with what happens; `predicted` is before this node's factors."""

    task: TaskFacts
    hardware: HardwareFacts
    candidate: Candidate
    predicted: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One of the ways, what the job record says, and what is to be learnt; None where nothing was predicted."""

    way: int
    note: ChoiceNote = field(hash=False)
    trial: Trial | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    """A route and a combination."""

    way: int
    combination: Combination
    trial: Trial
    estimate: Estimate  # with this node's factor
    blamed_s: float

    @property
    def expected_s(self) -> float:
        """Return what pairs are ordered by: blame counts, but nobody is told of it as a prediction."""
        return self.estimate.seconds + self.blamed_s

    @property
    def cost(self) -> float:
        return self.estimate.cost(self.trial.hardware.price_per_hour)

    @property
    def title(self) -> str:
        return self.combination.title

    @property
    def order(self) -> tuple[float, ...]:
        """Return what pairs are sorted by: where two are expected together, what does less comes first."""
        made = self.combination
        return self.expected_s, self.way, len(made.methods), made.depth, -made.chunk


class Policy:
    """Chooses by a predictor, by what this node learned, and by what it barred."""

    def __init__(
        self,
        *,
        model: ModelFacts | None,
        hardware: HardwareFacts | None,
        predictor: Predicts | None,
        corrections: Corrections | None = None,
        barred: Barred | None = None,
        options: Options | None = None,
    ) -> None:
        """Without model, hardware (a template for every stage) or predictor the measured default is chosen."""
        self.predictor = predictor
        self.corrections = corrections or Corrections()
        self.barred = barred or Barred()
        self.hardware = hardware
        self._model = model
        self._options = options or Options()

    @property
    def missing(self) -> str:
        """Return why nothing can be predicted; empty where it can."""
        if self.predictor is None:
            return "there is no trained predictor"
        if self._model is None:
            return "the model's architecture is not one that was measured"
        return "" if self.hardware is not None else "this machine was not measured"

    def bar(self, method: str, reason: str) -> None:
        """Run nothing by this method any more, because its output was wrong; raise `OSError`."""
        self.barred.bar(method, reason)

    def choose(self, asked: Asked, *, pin: Combination | None = None) -> Choice:
        """Choose; raise `OverBudgetError` where that is how a budget is kept. Takes a few milliseconds, no I/O.

        `pin` leaves the route to choose, and what of it cannot run is off.
        """
        pairs, missing = self._pairs(asked, pin)
        if not pairs:
            return self._unpredicted(asked, missing, pin)
        options = self._options
        limits = Limits(seconds=asked.limit_s, budget=options.budget, over_budget=options.over_budget)
        if pin is not None:
            return self._pinned(asked, pairs, limits, pin)
        fit = limits.met_by(pairs)
        chosen, why = pick(pairs, limits, usual=partial(_usual, pairs), least_gain=options.least_gain)
        tried = self._explored(asked, chosen, [each for each in fit if each.estimate.inside])
        if tried is not None:
            return _choice(asked, tried, fit, "tried to learn from it")
        return _choice(asked, chosen, fit or pairs, why)

    def _pinned(self, asked: Asked, pairs: Sequence[_Pair], limits: Limits, pin: Combination) -> Choice:
        own = [each for each in pairs if each.combination == self._kept(pin, each.trial.task)]
        fit = limits.met_by(own)
        chosen, why = (min(fit, key=_order), "") if fit else limits.least_bad(own)
        return _choice(asked, chosen, pairs, f"{_PINNED}; {why}" if why else _PINNED)

    def _kept(self, pin: Combination, task: TaskFacts) -> Combination:
        """Return what of a pinned combination can run."""
        return runnable(pin, task).without(self.barred.reasons)

    def _pairs(self, asked: Asked, pin: Combination | None) -> tuple[list[_Pair], str]:
        """Return what could be run with what it should take, or why nothing can be said."""
        predictor, model, hardware = self.predictor, self._model, self.hardware
        if predictor is None or model is None or hardware is None:
            return [], self.missing
        found: list[_Pair] = []
        try:
            for index, way in enumerate(asked.ways):
                found += self._pairs_of(asked, index, predictor, model, hardware_of(hardware, way), pin)
        except Exception as error:  # noqa: BLE001  a predictor that fails must not cost the payer the answer
            _log.warning("prediction failed error=%r", error)
            return [], f"the predictor failed: {error}"
        return found, "nothing that may run here was measured"

    def _pairs_of(  # noqa: PLR0917 -- all but the index are of different types
        self,
        asked: Asked,
        index: int,
        predictor: Predicts,
        model: ModelFacts,
        hardware: HardwareFacts,
        pin: Combination | None,
    ) -> list[_Pair]:
        way = asked.ways[index]
        task, lane = warmed(asked.task, way.warm_tokens), lane_of(way.profile, hardware)
        if lane is None or not self.barred.allows(lane.weights, *lane.methods):
            return []
        made = combinations(task, lane, hardware, real_weights=model.real_weights)
        found = [each for each in made if self.barred.allows(*each[0].methods)]
        kept = None if pin is None else self._kept(pin, task)
        if kept is not None and all(each != kept for each, _ in found):
            found.append((kept, stands_for(kept, task, lane)))
        if not found:
            return []
        forecasts = predictor.predict(task, model, hardware, [candidate for _, candidate in found])
        raw = [Estimate.of(each) for each in forecasts]
        scale = _scale(way, [each for (made, _), each in zip(found, raw, strict=True) if not made.depth])
        return [
            self._pair(
                index,
                combination,
                Trial(task=task, hardware=hardware, candidate=candidate, predicted=estimate.times(scale)),
                blamed_s=way.blamed_s * task.answer_tokens,
            )
            for (combination, candidate), estimate in zip(found, raw, strict=True)
        ]

    def _pair(self, way: int, combination: Combination, trial: Trial, *, blamed_s: float) -> _Pair:
        factor = self.corrections.factor(trial.candidate.name)
        estimate = trial.predicted.times(factor)
        return _Pair(way=way, combination=combination, trial=trial, estimate=estimate, blamed_s=blamed_s)

    def _explored(self, asked: Asked, chosen: _Pair, inside: Sequence[_Pair]) -> _Pair | None:
        draw = keccak(b"explore", asked.digest)
        if not inside or int.from_bytes(draw[:8], "big") >= self._options.explore * 2**64:
            return None
        most_s = (1 + self._options.near) * min(each.expected_s for each in inside)
        near = [
            each
            for each in inside
            if each is not chosen and each.expected_s <= most_s and 2 * each.estimate.high <= asked.limit_s
        ]
        return near[int.from_bytes(draw[8:16], "big") % len(near)] if near else None

    def _unpredicted(self, asked: Asked, missing: str, pin: Combination | None) -> Choice:
        """Return what is pinned, else the default, over the way with the soonest end, as far as step times tell."""
        found = [
            (_rough_s(asked.task, way), way.blamed_s * asked.task.answer_tokens, index)
            for index, way in enumerate(asked.ways)
        ]
        (first_s, total_s), _, index = min(found, key=lambda each: (each[0][1] + each[1], each[2]))
        task = warmed(asked.task, asked.ways[index].warm_tokens)
        usual = default(task).without(self.barred.reasons) if pin is None else self._kept(pin, task)
        why = f"the default, because {missing}" if pin is None else f"{_PINNED}, not predicted because {missing}"
        text = f"{usual.title}: {_facts(task, asked.ways[index])}; {why}"
        predicted = {"first_token_s": round(first_s, 6), "total_s": round(total_s, 6)}
        note = ChoiceNote(method=usual.method, amounts=usual.amounts, predicted=predicted, reason=text)
        return Choice(way=index, note=note)


def _scale(way: Way, without_guesses: Sequence[Estimate]) -> float:
    """Return how much slower the route's stages are than predicted, by what they say of one step."""
    if not way.measured or not without_guesses or without_guesses[0].tpot_s <= 0:
        return 1.0
    return min(_MOST_SCALE, max(1 / _MOST_SCALE, way.step_s / without_guesses[0].tpot_s))


def _rough_s(task: TaskFacts, way: Way) -> tuple[float, float]:
    """Return seconds to the first token and to the last, from the time of a step alone."""
    first = max(1.0, _ROW_SHARE * (task.prompt_tokens - way.warm_tokens)) * way.step_s
    return first, first + (task.answer_tokens - 1) * way.step_s


def _usual(pairs: Sequence[_Pair], best: _Pair) -> _Pair | None:
    """Return the measured default over the best pair's route."""
    return next((each for each in pairs if each.way == best.way and each.combination == default(each.trial.task)), None)


def _order(pair: _Pair) -> tuple[float, ...]:
    return pair.order


def _choice(asked: Asked, chosen: _Pair, pairs: Sequence[_Pair], why: str) -> Choice:
    others = sorted((each for each in pairs if each is not chosen), key=_order)[:_SHOWN]
    note = ChoiceNote(
        method=chosen.combination.method,
        amounts=chosen.combination.amounts,
        predicted=_numbers(chosen, others),
        reason=_reason(asked, chosen, others, why),
    )
    return Choice(way=chosen.way, note=note, trial=chosen.trial)


def _numbers(chosen: _Pair, others: Sequence[_Pair]) -> Mapping[str, float]:
    own = chosen.estimate
    numbers = {
        "first_token_s": own.ttft_s,
        "per_token_s": own.tpot_s,
        "total_s": own.seconds,
        "total_low_s": own.low,
        "total_high_s": own.high,
    }
    for each in reversed(others):  # the soonest of those with one title has the last word
        numbers[f"{each.combination.title}.total_s"] = each.estimate.seconds
    return {name: round(value, 6) for name, value in numbers.items()}


def _reason(asked: Asked, chosen: _Pair, others: Sequence[_Pair], why: str) -> str:
    own, task = chosen.estimate, chosen.trial.task
    text = (
        f"{chosen.combination.title}: {_facts(task, asked.ways[chosen.way])}; {task.answer_tokens} tokens predicted "
        f"within {own.seconds:.2f} s ({own.low:.2f} to {own.high:.2f}), the first after {own.ttft_s:.2f} s"
    )
    if others:
        second = others[0]
        over = "" if second.way == chosen.way else " over another route"
        text += f", against {second.estimate.seconds:.2f} s by {second.combination.title}{over}"
    return f"{text}; {why}" if why else text


def _facts(task: TaskFacts, way: Way) -> str:
    stages = "1 stage" if way.stages == 1 else f"{way.stages} stages"
    cached = f", {task.warm_tokens} of them cached" if task.warm_tokens else ""
    return f"{task.prompt_tokens:.0f} prompt tokens over {stages}{cached}"
