"""How much strangers and peers may ask for at once: handshakes by address, calls by owner."""

from __future__ import annotations

import ipaddress
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from urllib.parse import unquote

from plait.protocol.ids import Address
from plait_node.wire.errors import BusyError

MAX_HANDSHAKES = 64
MAX_HANDSHAKES_AN_ADDRESS = 8
_MOST_OWNERS = 1_024
_HOUSE = 64  # bits: whoever has one IPv6 address commonly has all that share so many


class Gate:
    """Counts handshakes under way, in all and by address."""

    def __init__(self) -> None:
        self._pending: Counter[str] = Counter()

    @contextmanager
    def pending(self, where: str) -> Generator[None]:
        """Hold a place for a handshake; raise `BusyError` when there is none."""
        source = source_of(where)
        if self._pending[source] >= MAX_HANDSHAKES_AN_ADDRESS:
            raise BusyError(f"{MAX_HANDSHAKES_AN_ADDRESS} handshakes from {source} are under way; try again later")
        if self._pending.total() >= MAX_HANDSHAKES:
            raise BusyError(f"{MAX_HANDSHAKES} handshakes are under way; try again later")
        self._pending[source] += 1
        try:
            yield
        finally:
            self._pending[source] -= 1
            if not self._pending[source]:
                del self._pending[source]


class Rates:
    """Lets each owner do something `a_second` times a second, and `burst` times at once."""

    def __init__(self, *, a_second: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._a_second = a_second
        self._burst = float(burst)
        self._clock = clock
        self._left: dict[Address, tuple[float, float]] = {}  # what is left, and when that was so

    def take(self, owner: Address) -> bool:
        """Use one up; tell whether one was left."""
        now = self._clock()
        left = self._now(owner, now)
        if left < 1:
            return False
        self._left[owner] = (left - 1, now)
        if len(self._left) > _MOST_OWNERS:
            self._left = {each: value for each, value in self._left.items() if self._now(each, now) < self._burst}
        return True

    def _now(self, owner: Address, now: float) -> float:
        left, since = self._left.get(owner, (self._burst, now))
        return min(self._burst, left + (now - since) * self._a_second)


def source_of(where: str) -> str:
    """Return what of gRPC's `family:address:port` stands for one household: an IPv4 address, an IPv6 network."""
    family, _, rest = unquote(where).partition(":")
    host = rest.rpartition(":")[0].strip("[]").partition("%")[0]
    if family != "ipv6":
        return host or rest
    try:
        found = ipaddress.IPv6Address(host)
    except ValueError:
        return rest
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((found, _HOUSE), strict=False))
