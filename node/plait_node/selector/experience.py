"""What this node's jobs took, as rows like the measured ones: the last few thousand, in one file."""

from __future__ import annotations

import json
import logging
import os
import time
from collections import deque
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Final

from plait_node.selector.errors import HistoryError
from plait_node.selector.facts import ModelFacts
from plait_node.selector.observe import warmed
from plait_node.selector.policy import Trial
from plait_node.selector.rows import Outcome, Row, Rows

__all__ = ["Experience", "Ran", "row_of"]

MOST: Final = 5_000  # rows; about 200 KiB
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """How a job went that was answered to its end; seconds from its opening, without what the payer let it wait."""

    seconds: float
    ttft_s: float
    tokens: int
    reused_tokens: int  # of the prompt, from the stages' caches
    accepted: float  # share of guessed tokens that were right; -1: none were guessed
    overlap: float  # share of the answer's tokens that end a run of three seen in the prompt


class Experience:
    """Rows of this node, oldest forgotten first."""

    def __init__(self, path: Path, *, most: int = MOST) -> None:
        self._path = path
        self._rows = deque(_read(path), maxlen=most)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._rows)

    def add(self, row: Row) -> None:
        """Keep a row, in memory until `save`."""
        self._rows.append(row)

    def rows(self) -> Rows:
        """Return all rows, oldest first."""
        return Rows(self._rows)

    def save(self, rows: Rows) -> None:
        """Write the file anew with what `rows` gave, in a thread if need be; raise `OSError`."""
        rows.save(self._path)


def row_of(trial: Trial, model: ModelFacts, ran: Ran) -> Row:
    """Return a job as a row: the task as it turned out, with the answer's length and what was really reused."""
    task = replace(warmed(trial.task, ran.reused_tokens), answer_tokens=ran.tokens)
    further_s = (ran.seconds - ran.ttft_s) / (ran.tokens - 1) if ran.tokens > 1 else 0.0
    outcome = Outcome(
        repeats=1,
        discarded=0,
        tokens_s=ran.tokens / ran.seconds,
        seconds=ran.seconds,
        seconds_low=ran.seconds,
        seconds_high=ran.seconds,
        ttft_s=ran.ttft_s,
        tpot_p50_s=further_s,
        tpot_p99_s=further_s,
        peak_memory_bytes=0,
        energy_j=None,
        agreement=-1.0,
        accepted=ran.accepted,
        overlap=ran.overlap,
        load=os.getloadavg()[0],
        at=time.strftime("%Y-%m-%d", time.gmtime()),
        versions=json.dumps({"plait": version("plait")}),
    )
    return Row(task=task, model=model, hardware=trial.hardware, candidate=trial.candidate, outcome=outcome)


def _read(path: Path) -> Rows:
    if not path.exists():
        return Rows()
    try:
        return Rows.load(path)
    except HistoryError as error:
        _log.warning("experience starts anew error=%s", error)
        return Rows()
