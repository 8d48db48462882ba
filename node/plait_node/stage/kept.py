"""The rows that a stage sent to the next one, kept so that they can be sent again to whoever replaces it."""

from __future__ import annotations

from plait_node.engine.residents import Engine
from plait_node.stage.errors import NoRoomError, StageBusyError
from plait_node.wire.tensor import FP32, row_bytes

__all__ = ["KeptRows", "RowBudget"]

_MIB = 1 << 20


class RowBudget:
    """The memory that a stage has for rows, in bytes: each job's part is reserved before the job begins."""

    def __init__(self, most: int, *, width: int, keeps: bool = True) -> None:
        """Share `most` bytes for rows of `width` bytes; the last stage of a model `keeps` none."""
        self.most = most
        self.width = width
        self.used = 0
        self._keeps = keeps

    @classmethod
    def of(cls, engine: Engine, most: int) -> RowBudget:
        """Return `most` bytes for what an engine's blocks give out."""
        manifest = engine.manifest
        return cls(most, width=row_bytes(FP32, manifest.hidden), keeps=engine.last < manifest.blocks)

    def fitting(self, steps: int) -> int:
        """Return for how many of `steps` there is room."""
        return min(steps, max(0, self.most - self.used) // self.width) if self._keeps else steps

    def reserve(self, steps: int) -> KeptRows:
        """Return room for so many rows; raise `NoRoomError` for more than ever fit, `StageBusyError` for now."""
        size = steps * self.width if self._keeps else 0
        if size > self.most:
            raise NoRoomError(
                f"{steps} steps were asked; their rows take {size / _MIB:.1f} MiB, this stage keeps at most "
                f"{self.most / _MIB:g}: ask for at most {self.most // self.width} steps, or another stage"
            )
        if self.used + size > self.most:
            raise StageBusyError(
                f"the rows of {steps} steps take {size / _MIB:.1f} MiB, this stage has "
                f"{(self.most - self.used) / _MIB:.1f} left; try again or another one"
            )
        return KeptRows(self, size)


class KeptRows:
    """Encoded rows of the steps from `start` on, as wide as the budget says."""

    def __init__(self, budget: RowBudget, room: int) -> None:
        """Begin with none, and take `room` bytes of the budget until `free`."""
        self.width = budget.width
        self.start = 0
        self._rows = bytearray()
        self._budget, self._room = budget, room
        budget.used += room

    @property
    def end(self) -> int:
        """Return the first step that is not kept."""
        return self.start + len(self._rows) // self.width

    def begin(self, step: int) -> None:
        """Keep rows from `step` on: nothing is known of those before."""
        self.start = step
        self._rows.clear()

    def add(self, step: int, data: bytes) -> None:
        """Keep the rows of `step` and those after it; they take the place of what was kept from there on."""
        self.cut(step)
        self._rows += data

    def cut(self, step: int) -> None:
        """Forget the rows from `step` on."""
        del self._rows[max(0, step - self.start) * self.width :]

    def rows(self, first: int, last: int) -> bytes | None:
        """Return the rows of steps first to last - 1, None unless all of them are kept."""
        if not self.start <= first <= last <= self.end:
            return None
        return bytes(self._rows[(first - self.start) * self.width : (last - self.start) * self.width])

    def free(self) -> None:
        """Forget everything and give the room back; once is enough."""
        self._budget.used -= self._room
        self._room = 0
        self._rows = bytearray()
