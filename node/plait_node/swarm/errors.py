"""What can go wrong in the swarm.

SwarmError
├── DhtError
│   ├── DhtPortInUseError
│   ├── DhtStoppedError
│   ├── DhtTimeoutError
│   └── ValueTooLargeError
├── BadRecordError
├── NotReachableError
└── NoRouteError
"""

from __future__ import annotations

from plait.protocol.errors import PlaitError


class SwarmError(PlaitError):
    """Root of what the swarm raises."""

    code = "swarm"


class DhtError(SwarmError):
    """The distributed hash table could not do what was asked."""


class DhtPortInUseError(DhtError):
    """The UDP port of the DHT is taken: free it or configure another one."""

    def __init__(self, host: str, port: int, reason: str) -> None:
        """Keep the address that could not be bound."""
        super().__init__(f"the DHT cannot listen on {host}:{port} ({reason}): free that port or configure another")
        self.host = host
        self.port = port


class DhtStoppedError(DhtError):
    """The DHT is not running: start it first."""

    def __init__(self) -> None:
        """Say what to do."""
        super().__init__("the DHT is not running: start it before putting or getting records")


class DhtTimeoutError(DhtError):
    """The DHT did not get that far before the deadline."""

    def __init__(self, what: str, deadline_s: float) -> None:
        """Keep what was waited for and how long."""
        super().__init__(f"the DHT did not {what} within {deadline_s:g} s: check its bootstrap peers and UDP reach")
        self.deadline_s = deadline_s


class ValueTooLargeError(DhtError):
    """A mutable item holds at most 1,000 bytes bencoded."""

    def __init__(self, size: int, limit: int) -> None:
        """Keep both sizes in bytes."""
        super().__init__(f"a DHT value of {size} bytes does not fit: at most {limit}; store its digest instead")
        self.size = size
        self.limit = limit


class BadRecordError(SwarmError):
    """A record from the DHT was refused; `reason` is a stable word that counters use."""

    def __init__(self, reason: str, detail: str) -> None:
        """Keep the counter's word beside the text."""
        super().__init__(f"record refused ({reason}): {detail}")
        self.reason = reason


class NotReachableError(SwarmError):
    """A stage that only dials out has no link to a meeting point, so its record would lead nowhere."""

    def __init__(self) -> None:
        """Say what to do."""
        super().__init__(
            "this stage only dials out and has no link to a meeting point: wait for a dialable stage of its model, or "
            "name nodes in `via`"
        )


class NoRouteError(SwarmError):
    """No announced stages tile the model's blocks under the price limit."""

    def __init__(self, text: str, *, missing: tuple[tuple[int, int], ...] = ()) -> None:
        """Keep the block ranges `[first, last)` that nobody serves."""
        super().__init__(text)
        self.missing = missing
