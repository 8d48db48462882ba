"""How long an attempt took by its worker's clock, without the time that its payer let it wait."""

from __future__ import annotations


class Pace:
    """Marks of one attempt, in seconds of the event loop's clock."""

    def __init__(self, began: float) -> None:
        """Begin now."""
        self._began = began
        self._first: float | None = None
        self._last = began
        self._waits_since: float | None = None
        self._waited_s = 0.0

    @property
    def seconds(self) -> float:
        """Return the time until the newest token."""
        return self._last - self._began

    @property
    def first_s(self) -> float:
        """Return the time until the first token; 0 before it came."""
        return self._first - self._began if self._first is not None else 0.0

    def token(self, now: float) -> None:
        """Note that tokens came."""
        self._last = now - self._waited_s
        if self._first is None:
            self._first = self._last

    def wait(self, now: float, *, starved: bool) -> None:
        """Note whether the next row waits for a payment; such time does not count."""
        if starved and self._waits_since is None:
            self._waits_since = now
        elif not starved and self._waits_since is not None:
            self._waited_s += now - self._waits_since
            self._waits_since = None
