"""What a stage measures of itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from plait_node.engine.evidence import EvidenceLog
from plait_node.engine.load import Load
from plait_node.stage.kept import RowBudget

_SMOOTHING = 0.1


@dataclass(slots=True)
class StageFacts:
    """What the announcer says of a stage; times are running means over decode steps, in microseconds."""

    load: Load
    rows: RowBudget
    evidence: EvidenceLog  # rows of which the engine made NaN or infinity
    step_micros: int = 0  # the pass that it was in
    hop_micros: int = 0  # from a row's arrival to its departure
    queue: int = 0  # open jobs

    @property
    def free_steps(self) -> int:
        """Return the room that a new job could have, in keys and values and in kept rows."""
        return self.rows.fitting(self.load.free_steps)

    def write_evidence(self, folder: Path) -> list[Path]:
        """Write what the engine kept, a file for each case; return the paths. Blocks while it writes."""
        return [evidence.write(folder) for evidence in self.evidence]

    def observe(self, *, step_s: float, hop_s: float) -> None:
        """Take the times of one decode step."""
        self.step_micros = _smoothed(self.step_micros, step_s)
        self.hop_micros = _smoothed(self.hop_micros, hop_s)


def _smoothed(mean: int, seconds: float) -> int:
    now = int(seconds * 1e6)
    return now if mean == 0 else int(mean + _SMOOTHING * (now - mean))
