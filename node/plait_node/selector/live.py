"""A worker's selector: it chooses, learns from what came of it, and keeps both under the node's home."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from plait.protocol.ids import to_hex
from plait_node.selector.barred import Barred
from plait_node.selector.errors import SelectorError
from plait_node.selector.estimates import Predicts
from plait_node.selector.experience import Experience, Ran, row_of
from plait_node.selector.facts import HardwareFacts, ModelFacts
from plait_node.selector.machine import Measure
from plait_node.selector.online import Corrections
from plait_node.selector.pin import PIN, Pinned
from plait_node.selector.policy import Asked, Choice, Options, Policy, Trial

__all__ = ["BARRED", "CORRECTIONS", "STATE", "LiveSelector", "Refit", "Trained"]

STATE: Final = "state.json"
OBSERVED: Final = "observed.parquet"
CORRECTIONS: Final = "corrections.json"
BARRED: Final = "barred.json"
_TOLD: Final = 20  # choices in the state
_PAUSE_S: Final = 1.0  # files are written at most that often
_SAVE_EVERY: Final = 25  # jobs between two writings of their rows; the last ones are lost when the node is killed
_FIT_EVERY: Final = 250  # jobs
_FIT_LEAST: Final = 60  # rows without which nothing new can be learned

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A predictor and its artefact's hash."""

    predictor: Predicts
    digest: str


# Fits anew from the shipped history and this node's rows; None where what came of it is worse than what there is.
Refit = Callable[[], Awaitable[Trained | None]]


@dataclass(slots=True, kw_only=True)
class _Told:
    """One choice, for `plait node status`."""

    request: str
    at: float  # Unix seconds
    method: str
    predicted_s: float | None  # of the answer as long as it became; before, of the tokens asked for
    reason: str
    took_s: float | None = None


class LiveSelector:
    """One for each model that a worker serves."""

    def __init__(
        self,
        folder: Path,
        *,
        model: ModelFacts | None,
        hardware: HardwareFacts | None,
        trained: Trained | None,
        clock: Callable[[], float],
        options: Options | None = None,
        refit: Refit | None = None,
        measure: Measure | None = None,
    ) -> None:
        """Keep what is learned in `folder`; whatever is None makes the measured default the choice.

        `measure` is called once, while it runs, where the hardware is None.
        """
        self._folder = folder
        self._model = model
        self._digest = trained.digest if trained is not None else ""
        self._clock = clock
        self._refit = refit
        self._measure = measure
        self._pin = Pinned(folder / PIN)
        self._experience = Experience(folder / OBSERVED)
        self._told: OrderedDict[bytes, _Told] = OrderedDict()
        self._learned = 0
        self._unfitted = 0  # jobs since the last fit
        self._changed, self._due = asyncio.Event(), asyncio.Event()
        self.policy = Policy(
            model=model,
            hardware=hardware,
            predictor=trained.predictor if trained is not None else None,
            corrections=Corrections.load(folder / CORRECTIONS),
            barred=Barred(folder / BARRED),
            options=options,
        )
        if self.policy.missing:
            _log.warning("the measured default is chosen for every job reason=%s", self.policy.missing)

    def choose(self, asked: Asked) -> Choice:
        """Choose for a job, or take what the operator pinned; raise `OverBudgetError`."""
        choice = self.policy.choose(asked, pin=self._pin.current())
        self._told[asked.digest] = _Told(
            request=to_hex(asked.digest),
            at=self._clock(),
            method=choice.note.method,
            predicted_s=choice.note.predicted.get("total_s"),
            reason=choice.note.reason,
        )
        self._told.move_to_end(asked.digest)
        if len(self._told) > _TOLD:
            self._told.popitem(last=False)
        self._changed.set()
        return choice

    def learn(self, digest: bytes, trial: Trial | None, ran: Ran) -> None:
        """Learn from a job that was answered to its end."""
        told = self._told.get(digest)
        if told is not None:
            told.took_s = ran.seconds
        if trial is not None and self._model is not None and ran.tokens and ran.seconds > 0:
            expected_s = trial.predicted.seconds_of(ran.tokens, asked=trial.task.answer_tokens)
            if told is not None:
                told.predicted_s = expected_s * self.policy.corrections.factor(trial.candidate.name)
            # Stages that had forgotten the prefix make it another task than the one that was predicted.
            if ran.reused_tokens == trial.task.warm_tokens or "prefix-cache" not in trial.candidate.methods:
                self.policy.corrections.add(trial.candidate.name, expected_s, ran.seconds)
            self._experience.add(row_of(trial, self._model, ran))
            self._count()
        self._changed.set()

    async def run(self) -> None:
        """Measure the machine, write what changes, and fit anew when it is time, until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep())
                group.create_task(self._fit_when_due())
                group.create_task(self._measure_once())
        finally:
            self._write(rows=True)

    def _count(self) -> None:
        self._learned += 1
        self._unfitted += 1
        if len(self._experience) < _FIT_LEAST or self._unfitted < _FIT_LEAST // 2:
            return
        if self.policy.corrections.drifted or self._unfitted >= _FIT_EVERY:
            self._due.set()

    async def _keep(self) -> None:
        saved = 0
        while True:
            await self._changed.wait()
            self._changed.clear()
            rows = self._learned >= saved + _SAVE_EVERY
            saved = self._learned if rows else saved
            self._write(rows=False)
            if rows:
                await self._save_rows()
            await asyncio.sleep(_PAUSE_S)

    async def _save_rows(self) -> None:
        try:
            await asyncio.to_thread(self._experience.save, self._experience.rows())
        except OSError as error:
            _log.warning("selector's files not written folder=%s error=%s", self._folder, error)

    async def _fit_when_due(self) -> None:
        while self._refit is not None:
            await self._due.wait()
            self._due.clear()
            self._unfitted = 0
            await self._save_rows()
            try:
                trained = await self._refit()
            except (OSError, TimeoutError, SelectorError) as error:
                _log.warning("fitting anew failed error=%s", error)
                trained = None
            self._swap(trained)
            self._changed.set()

    async def _measure_once(self) -> None:
        if self._measure is None or self.policy.hardware is not None:
            return
        try:
            self.policy.hardware = await self._measure()
        except (OSError, TimeoutError, SelectorError) as error:
            _log.warning("machine not measured, the default goes on error=%s", error)
            return
        _log.info("machine measured gflops=%g", self.policy.hardware.matmul_gflops)
        self._changed.set()

    def _swap(self, trained: Trained | None) -> None:
        """Go on with what was fitted: factors on the old predictions do not fit the new ones."""
        if trained is None:
            self.policy.corrections.settle()
            return
        _log.info("predictor renewed digest=%s", trained.digest)
        self._digest = trained.digest
        self.policy.predictor, self.policy.corrections = trained.predictor, Corrections()

    def _write(self, *, rows: bool) -> None:
        """Write the small files, a few KiB; and the rows where nothing else runs any more."""
        try:
            self.policy.corrections.save(self._folder / CORRECTIONS)
            partial = self._folder / f"{STATE}.partial"
            partial.write_text(json.dumps(self._state(), indent=1), encoding="utf-8")
            partial.replace(self._folder / STATE)
            if rows and len(self._experience):
                self._experience.save(self._experience.rows())
        except OSError as error:
            _log.warning("selector's files not written folder=%s error=%s", self._folder, error)

    def _state(self) -> dict[str, object]:
        corrections = self.policy.corrections
        return {
            "predictor": self._digest,
            "missing": self.policy.missing,
            "observed": len(self._experience),
            "factor": round(corrections.shared, 3),
            "drifted": corrections.drifted,
            "barred": dict(self.policy.barred.reasons),
            "choices": [asdict(each) for each in reversed(self._told.values())],
        }
