"""The rows that a stage sent to the next one, kept so that they can be sent again to whoever replaces it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container, Sequence

from plait.protocol.ids import Hash
from plait.protocol.windows import WINDOW_STEPS
from plait_node.engine.residents import Engine
from plait_node.stage.codecs import RowCodecs, profile_of
from plait_node.stage.config import StageConfig
from plait_node.stage.errors import NoRoomError, StageBusyError
from plait_node.wire.tensor import row_bytes

__all__ = ["KeptRows", "RowBudget"]

_MIB = 1 << 20


class RowBudget:
    """The memory that a stage has for rows, in bytes: each job's part is reserved before the job begins.

    What jobs leave free holds rows of cached windows, which make place for jobs, those used least recently first.
    """

    def __init__(self, most: int, *, width: int, keeps: bool = True) -> None:
        """Share `most` bytes for rows of at most `width` bytes; the last stage of a model `keeps` none."""
        self.most = most
        self.width = width
        self.used = 0
        self.cached = 0
        self.keeps = keeps
        self._windows: OrderedDict[Hash, bytes] = OrderedDict()

    @classmethod
    def of(cls, engine: Engine, config: StageConfig) -> RowBudget:
        """Return what a stage has for the rows of its profile; raise `StageError` for one that the model lacks."""
        manifest, profile = engine.manifest, profile_of(engine.manifest, config.profile)
        width = max(row_bytes(codec, manifest.hidden) for codec in (profile.prefill_codec, profile.decode_codec))
        return cls(config.rows_bytes, width=width, keeps=engine.last < manifest.blocks)

    def fitting(self, steps: int) -> int:
        """Return for how many of `steps` there is room, whichever codec their rows are in."""
        return min(steps, max(0, self.most - self.used) // self.width) if self.keeps else steps

    def reserve(self, steps: int, codecs: RowCodecs) -> KeptRows:
        """Return room for a job's rows; raise `NoRoomError` for more than ever fit, `StageBusyError` for now."""
        size = codecs.size(0, steps) if self.keeps else 0
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
        self._make_place(size, spared=())
        return KeptRows(self, size, codecs)

    def keep(self, key: Hash, rows: bytes, *, spared: Container[Hash]) -> bool:
        """Keep a cached window's rows in place of others, but of none that is `spared`; tell whether they are kept."""
        self.forget(key)
        if not self._make_place(len(rows), spared=spared):
            return False
        self._windows[key] = rows
        self.cached += len(rows)
        return True

    def window(self, key: Hash) -> bytes:
        """Return a cached window's rows as the ones used last, no bytes if they are not kept."""
        rows = self._windows.get(key, b"")
        if rows:
            self._windows.move_to_end(key)
        return rows

    def forget(self, key: Hash) -> None:
        """Forget a cached window's rows."""
        self.cached -= len(self._windows.pop(key, b""))

    def _make_place(self, size: int, *, spared: Container[Hash]) -> bool:
        while self.used + self.cached + size > self.most:
            oldest = next(iter(self._windows), None)
            if oldest is None or oldest in spared:
                return False
            self.forget(oldest)
        return True


class KeptRows:
    """Rows of the steps from `start` on, as they were sent: those of cached windows first, then the job's own."""

    def __init__(self, budget: RowBudget, room: int, codecs: RowCodecs) -> None:
        """Begin with none, and take `room` bytes of the budget until `free`."""
        self.codecs = codecs
        self.start = self.end = 0  # the first step that is kept, and the first one behind them
        self._windows: list[bytes] = []  # of 16 steps each; the room covers them, though the cache has them too
        self._rows = bytearray()
        self._budget, self._room = budget, room
        budget.used += room

    @property
    def _own(self) -> int:
        return self.start + WINDOW_STEPS * len(self._windows)

    def begin(self, step: int, windows: Sequence[bytes] = ()) -> None:
        """Keep rows from `step` on, and before it those of cached windows if of each there are some."""
        self._windows = list(windows) if all(windows) else []
        self.start, self.end = step - WINDOW_STEPS * len(self._windows), step
        self._rows.clear()

    def add(self, step: int, count: int, data: bytes) -> None:
        """Keep `count` rows from `step` on; they take the place of what was kept from there on."""
        self.cut(step)
        self._rows += data
        self.end = step + count

    def cut(self, step: int) -> None:
        """Forget the rows from `step` on."""
        if step < self._own:
            whole, steps = divmod(max(0, step - self.start), WINDOW_STEPS)
            parted = self._windows[whole]
            self._rows = bytearray(parted[: steps * len(parted) // WINDOW_STEPS])
            del self._windows[whole:]
        else:
            del self._rows[self._place(step) :]
        self.end = max(self.start, min(self.end, step))

    def has(self, first: int, last: int) -> bool:
        """Tell whether the rows of steps first to last - 1 are all kept."""
        return self.start <= first <= last <= self.end

    def rows(self, first: int, last: int) -> bytes | None:
        """Return the rows of steps first to last - 1, None unless all of them are kept."""
        if not self.has(first, last):
            return None
        own, starts = self._own, range(self.start, self._own, WINDOW_STEPS)
        parts = [_steps(window, first - at, last - at) for at, window in zip(starts, self._windows, strict=True)]
        parts.append(bytes(self._rows[self._place(max(own, first)) : self._place(max(own, last))]))
        return b"".join(part for part in parts if part)

    def free(self) -> None:
        """Forget everything and give the room back; once is enough."""
        self._budget.used -= self._room
        self._room = 0
        self._windows = []
        self._rows = bytearray()

    def _place(self, step: int) -> int:
        """Return where the job's own row of a step begins."""
        return self.codecs.size(self._own, step)


def _steps(window: bytes, first: int, last: int) -> bytes:
    """Return the rows of steps first to last - 1 of a window's 16, as far as they are in it."""
    width = len(window) // WINDOW_STEPS
    return window[max(0, first) * width : max(0, last) * width]
