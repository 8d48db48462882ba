"""Draft model: a small model of the same vocabulary goes ahead, the large one checks what it says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from plait.protocol.ids import Hash
from plait_node.engine.methods.base import Amount, Facts, Method

if TYPE_CHECKING:
    from plait_node.engine.stage_engine import StageEngine

__all__ = ["DraftModel", "DraftModelMethod"]


class DraftModelMethod(Method):
    """Pays where the small model is often right and many times faster."""

    name = "draft-model"
    title = "check tokens that a small model wrote ahead"
    scope = "job"
    amount = Amount(unit="proposed tokens", least=1, most=16, default=4)

    def refusal(self, amount: int, facts: Facts, chosen: Mapping[str, int]) -> str | None:
        """Return why not; see `Method`."""
        del amount
        if not facts.draft_model:
            return "no draft model with this vocabulary is loaded"
        return "prompt-lookup proposes already, one method at a time" if "prompt-lookup" in chosen else None


class DraftModel:
    """Proposes for one job, greedily; open until `close`."""

    def __init__(self, engine: StageEngine, job: Hash, *, room: int) -> None:
        """Open the job on an engine of all blocks; raise what its `open` raises."""
        self._engine = engine
        self._job = job
        self._room = min(room, engine.max_steps)
        self._fed: list[int] = []  # the rows that the engine holds
        self._agreed = 0  # of these, how many are known to be the text's
        engine.open(job, self._room)

    def propose(self, ids: Sequence[int], depth: int) -> list[int]:
        """Return the small model's next `depth` tokens, fewer at the end of its room; raise `EngineError`."""
        depth = min(depth, self._room - len(ids) + 1)
        if depth < 1:
            return []
        self._forget_wrong(ids)
        rows, proposed = list(ids[len(self._fed) :]), list[int]()
        while True:
            made = self._engine.step_one(self._job, len(self._fed), np.array(rows, dtype=np.int64))
            self._fed += rows
            if made.logits is None:
                raise ValueError("the draft engine has no output head; give one that holds all blocks")
            proposed.append(int(made.logits[-1].argmax()))
            if len(proposed) == depth:
                return proposed
            rows = proposed[-1:]

    def accepted(self, proposed: int, accepted: int) -> None:
        """Learn nothing: the text that comes next says which rows stay, and the depth is the caller's."""

    def close(self) -> None:
        """Give the room back."""
        self._engine.close(self._job)

    def _forget_wrong(self, ids: Sequence[int]) -> None:
        """Roll back to the rows that are the text's, all but its last one: that row gives the next logits."""
        limit = min(len(self._fed), len(ids) - 1)
        while self._agreed < limit and self._fed[self._agreed] == ids[self._agreed]:
            self._agreed += 1
        if self._agreed < len(self._fed):
            self._engine.rollback(self._job, self._agreed)
            del self._fed[self._agreed :]
