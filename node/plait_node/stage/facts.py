"""What a stage measures of itself."""

from __future__ import annotations

from dataclasses import dataclass

from plait_node.stage.compute import StepDone, StepWork

_SMOOTHING = 0.1


@dataclass(slots=True)
class StageFacts:
    """What the announcer says of a stage; times are running means over decode steps, in microseconds."""

    step_micros: int = 0  # the engine's part
    hop_micros: int = 0  # from a row's arrival to its departure
    free_steps: int = 0
    queue: int = 0  # open jobs

    def observe(self, work: StepWork, done: StepDone, *, hop_s: float) -> None:
        """Take the times of one frame of rows."""
        self.free_steps = done.free_steps
        if work.count == 1:
            self.step_micros = _smoothed(self.step_micros, done.seconds)
            self.hop_micros = _smoothed(self.hop_micros, hop_s)


def _smoothed(mean: int, seconds: float) -> int:
    now = int(seconds * 1e6)
    return now if mean == 0 else int(mean + _SMOOTHING * (now - mean))
