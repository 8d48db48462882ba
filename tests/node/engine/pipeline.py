"""Stages that jobs go round, with a clock moved by hand: a job's next row begins when its last one is drawn."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count

from plait.protocol.ids import Hash, keccak
from plait_node.engine.gathering import Gathering


def name(number: int) -> Hash:
    return keccak(number.to_bytes(4, "big"))


@dataclass(slots=True)
class Core:
    """Runs one pass at a time, first come, first served."""

    free_at: float = 0.0


@dataclass(slots=True)
class Stage:
    gathering: Gathering
    core: Core
    waiting: list[Hash] = field(default_factory=list[Hash])
    busy: bool = False
    passes: list[int] = field(default_factory=list[int])  # jobs of each
    longest_s: float = 0.0  # that a row waited here while no pass was on
    idle_since: dict[Hash, float] = field(default_factory=dict[Hash, float])


class Pipeline:
    """Stages in order; a pass of n jobs takes `base_s` + n `row_s` of its stage's core, and `hop_s` to the next one."""

    def __init__(
        self, stages: int, *, shared: bool, base_s: float = 0.01, row_s: float = 0.001, hop_s: float = 0.0005
    ) -> None:
        one = Core()
        self.stages = [
            Stage(gathering=Gathering(entry=at == 0), core=one if shared else Core()) for at in range(stages)
        ]
        self.now = 0.0
        self.drawn: dict[Hash, int] = {}
        self.gone: set[Hash] = set()
        self._cost = lambda jobs: base_s + jobs * row_s
        self._hop_s = hop_s
        self._numbers = count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []

    def join(self, job: Hash, *, at: float) -> None:
        self.drawn[job] = 0
        self._at(at, lambda: self._come(0, job))

    def leave(self, job: Hash) -> None:
        self.gone.add(job)
        for stage in self.stages:
            stage.gathering.left(job)

    def run(self, seconds: float) -> float:
        """Let time pass; return rows drawn a second."""
        before, until = sum(self.drawn.values()), self.now + seconds
        while self._events and self._events[0][0] <= until:
            self.now, _, do = heapq.heappop(self._events)
            do()
        self.now = until
        return (sum(self.drawn.values()) - before) / seconds

    def _at(self, when: float, do: Callable[[], None]) -> None:
        heapq.heappush(self._events, (max(when, self.now), next(self._numbers), do))

    def _come(self, at: int, job: Hash) -> None:
        stage = self.stages[at]
        if job in self.gone:
            return
        stage.waiting.append(job)
        stage.gathering.came(job, now=self.now)
        self._go_on(at)

    def _go_on(self, at: int) -> None:
        stage = self.stages[at]
        stage.waiting = [job for job in stage.waiting if job not in self.gone]
        if stage.busy or not stage.waiting:
            return
        for job in stage.waiting:
            stage.idle_since.setdefault(job, self.now)
        if (wait_s := stage.gathering.wait_s(set(stage.waiting), now=self.now, prompts=False)) > 0:
            self._at(self.now + wait_s, lambda: self._go_on(at))
            return
        taken = stage.waiting[: stage.gathering.most]
        stage.waiting = stage.waiting[len(taken) :]
        self._begin(at, taken)

    def _begin(self, at: int, taken: Sequence[Hash]) -> None:
        stage, core = self.stages[at], self.stages[at].core
        for job in taken:
            stage.longest_s = max(stage.longest_s, self.now - stage.idle_since.pop(job))
        stage.busy = True
        stage.passes.append(len(taken))
        began, core.free_at = self.now, max(core.free_at, self.now) + self._cost(len(taken))
        self._at(core.free_at, lambda: self._end(at, taken, began))

    def _end(self, at: int, taken: Sequence[Hash], began: float) -> None:
        stage = self.stages[at]
        stage.busy = False
        stage.gathering.gave(taken, now=self.now, pass_s=self.now - began, prompts=False)
        last = at == len(self.stages) - 1
        for place, job in enumerate(taken):
            if last:
                self.drawn[job] += 1
            self._arrive(0 if last else at + 1, job, self._hop_s * (1 + 0.2 * place))
        self._go_on(at)

    def _arrive(self, at: int, job: Hash, after_s: float) -> None:
        self._at(self.now + after_s, lambda: self._come(at, job))
