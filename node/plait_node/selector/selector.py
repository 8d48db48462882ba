"""Choose a method for a task: predict each that can serve it, take the fastest, say why."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from plait.protocol.choice import ChoiceNote
from plait.protocol.windows import WINDOW_STEPS
from plait_node.selector.errors import HistoryError, NoMethodError
from plait_node.selector.history import METHODS, History, Measurement, Method
from plait_node.selector.predict import first_token_s, per_token_s, uncertainty

__all__ = ["Choice", "Prediction", "Selector", "TaskFeatures"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFeatures:
    """What is known of a task before it starts.

    `step_s` is what one decode step takes over the route, where the route was measured; `hop_s` a round trip to one
    stage; both in seconds.
    """

    prompt_tokens: int
    max_tokens: int
    stages: int
    shared_prefix_tokens: int = 0
    step_s: float | None = None
    hop_s: float = 0.0

    @property
    def cached_tokens(self) -> int:
        """Return the shared prefix in whole windows; at least one prompt row is always computed."""
        return min(self.shared_prefix_tokens, self.prompt_tokens - 1) // WINDOW_STEPS * WINDOW_STEPS


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What one method with its amounts is expected to take, in seconds."""

    method: Method
    amounts: Mapping[str, int]
    first_token_s: float
    total_s: float

    @property
    def title(self) -> str:
        """Return the method with its amounts, for people."""
        amounts = ", ".join(f"{name} {value}" for name, value in self.amounts.items())
        return f"{self.method} ({amounts})" if amounts else self.method


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The chosen method, what was predicted for it and for the others, and the reason in a sentence."""

    predicted: Prediction
    others: tuple[Prediction, ...]
    reason: str

    @property
    def method(self) -> Method:
        """Return the chosen method."""
        return self.predicted.method

    @property
    def amounts(self) -> Mapping[str, int]:
        """Return the chosen amounts, such as the rows of a chunk."""
        return self.predicted.amounts

    def note(self) -> ChoiceNote:
        """Return what the job record commits to and the answer's note explains; predictions in seconds."""
        predicted = {"first_token_s": self.predicted.first_token_s, "total_s": self.predicted.total_s}
        for each in _one_per_method(self.others):
            if each.method != self.method:
                predicted[f"{each.method}.first_token_s"] = each.first_token_s
        rounded = {name: round(value, 6) for name, value in predicted.items()}
        return ChoiceNote(method=self.method, amounts=dict(self.amounts), predicted=rounded, reason=self.reason)


class Selector:
    """Chooses from one measured history."""

    def __init__(self, history: History | None = None) -> None:
        self.history = History.shipped() if history is None else history
        if not any(row.method == "plain" for row in self.history.measurements):
            raise HistoryError("the history never measured the plain method; measure anew")
        self._stage_counts = sorted({row.stages for row in self.history.measurements})

    def choose(self, task: TaskFeatures, allowed: Collection[Method] = METHODS) -> Choice:
        """Choose among the allowed methods that can serve the task; takes well under 5 ms.

        Raises:
            NoMethodError: none of them can.
        """
        measured = self._measured(task.stages)
        found = sorted(self._predictions(task, allowed, measured), key=lambda each: (each.total_s, each.title))
        if not found:
            raise NoMethodError(f"none of {sorted(allowed)} can serve this task; allow plain")
        plain = next((each for each in found if each.method == "plain"), None)
        best = found[0]
        noise = uncertainty(measured)
        if plain is not None and plain.first_token_s - best.first_token_s <= noise * plain.first_token_s:
            best = plain
        others = tuple(each for each in found if each is not best)
        return Choice(predicted=best, others=others, reason=self._reason(task, best, others, noise))

    def _measured(self, stages: int) -> list[Measurement]:
        nearest = min(self._stage_counts, key=lambda count: abs(count - stages))
        return [row for row in self.history.measurements if row.stages == nearest]

    def _predictions(
        self, task: TaskFeatures, allowed: Collection[Method], measured: list[Measurement]
    ) -> list[Prediction]:
        if not task.prompt_tokens > 0:
            raise NoMethodError("a prompt has at least one token")
        step_s = per_token_s(measured) if task.step_s is None else task.step_s
        further = step_s * max(0, task.max_tokens - 1)
        found: list[Prediction] = []
        kinds: set[tuple[Method, int]] = {(row.method, row.chunk) for row in measured}
        for method, chunk in kinds:
            if method not in allowed or not _feasible(method, chunk, task):
                continue
            rows = [row for row in measured if (row.method, row.chunk) == (method, chunk)]
            computed = task.prompt_tokens - (task.cached_tokens if method == "prefix-cache" else 0)
            first = first_token_s(rows, prompt_tokens=task.prompt_tokens, computed_tokens=computed)
            # Stages are asked one after the other which windows they hold; without a cache all are asked at once.
            first += task.hop_s * (2 * task.stages if method == "prefix-cache" else task.stages + 1)
            amounts = {"chunk": chunk} if chunk else {}
            found.append(Prediction(method=method, amounts=amounts, first_token_s=first, total_s=first + further))
        return found

    def _reason(self, task: TaskFeatures, best: Prediction, others: tuple[Prediction, ...], noise: float) -> str:
        facts = [f"{task.prompt_tokens} prompt tokens over {_stages(task.stages)}"]
        if best.method == "prefix-cache":
            facts.append(f"{task.cached_tokens} of them cached")
        shown = [
            f"{each.first_token_s:.2f} s {each.title}" for each in _one_per_method(others) if each.method != best.method
        ]
        text = f"{best.title}: {', '.join(facts)}; first token predicted after {best.first_token_s:.2f} s"
        if shown:
            text += f", against {' and '.join(shown)}"
        if best.method == "plain" and any(each.first_token_s < best.first_token_s for each in others):
            text += f" (the difference is within the {noise:.0%} that may be chance)"
        nearest = min(self._stage_counts, key=lambda count: abs(count - task.stages))
        if nearest != task.stages:
            text += f"; from measurements over {_stages(nearest)}, the nearest there are"
        return text


def _feasible(method: Method, chunk: int, task: TaskFeatures) -> bool:
    match method:
        case "plain":
            return True
        case "prefix-cache":
            return task.cached_tokens > 0
        case "chunked-prefill":
            return chunk < task.prompt_tokens


def _one_per_method(predictions: tuple[Prediction, ...]) -> list[Prediction]:
    """Return the best prediction of each method; they come fastest first."""
    best: dict[str, Prediction] = {}
    for each in predictions:
        best.setdefault(each.method, each)
    return list(best.values())


def _stages(count: int) -> str:
    return "1 stage" if count == 1 else f"{count} stages"
