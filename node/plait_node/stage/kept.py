"""The rows that a stage sent to the next one, kept so that they can be sent again to whoever replaces it."""

from __future__ import annotations

__all__ = ["KeptRows"]


class KeptRows:
    """Encoded rows of the steps from `start` on, `width` bytes each."""

    def __init__(self, *, width: int) -> None:
        """Begin with none."""
        self.width = width
        self.start = 0
        self._rows = bytearray()

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
