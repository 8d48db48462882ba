"""How much strangers and peers may ask for at once: handshakes by where they come from, calls by who makes them."""

from __future__ import annotations

import contextlib
import ipaddress
import time
from collections import Counter
from collections.abc import Callable, Generator, Hashable
from contextlib import contextmanager
from urllib.parse import unquote

from plait.protocol.ids import Address, to_hex
from plait_node.wire.errors import BusyError

MAX_HANDSHAKES = 64
MAX_HANDSHAKES_AN_ADDRESS = 8
MAX_HANDSHAKES_A_CALLER = 4  # whose bytes come over a relay, and so from this machine's own address
MAX_RELAYED_HANDSHAKES = 32  # of all such callers: whoever comes by itself always finds places
_MOST_KNOWN = 1_024
_HOUSE = 64  # bits: whoever has one IPv6 address commonly has all that share so many


class Gate:
    """Counts handshakes under way: in all, by address, and by caller where they come over a relay."""

    def __init__(self) -> None:
        self._pending: Counter[str] = Counter()
        self._relayed = 0

    @contextmanager
    def pending(self, where: str, *, caller: Address | None = None) -> Generator[None]:
        """Hold a place for a handshake, of a `caller` over a relay; raise `BusyError` when there is none."""
        if caller is None:
            source, most = source_of(where), MAX_HANDSHAKES_AN_ADDRESS
        else:
            source, most = f"{to_hex(caller)} over a relay", MAX_HANDSHAKES_A_CALLER
        relayed = int(caller is not None)
        if self._pending[source] >= most:
            raise BusyError(f"{most} handshakes from {source} are under way; try again later")
        if relayed and self._relayed >= MAX_RELAYED_HANDSHAKES:
            raise BusyError(f"{MAX_RELAYED_HANDSHAKES} handshakes over relays are under way; try again later")
        if self._pending.total() >= MAX_HANDSHAKES:
            raise BusyError(f"{MAX_HANDSHAKES} handshakes are under way; try again later")
        self._pending[source] += 1
        self._relayed += relayed
        try:
            yield
        finally:
            self._relayed -= relayed
            self._pending[source] -= 1
            if not self._pending[source]:
                del self._pending[source]


class Rates:
    """Lets each of many do something `a_second` times a second, and `burst` times at once."""

    def __init__(self, *, a_second: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._a_second = a_second
        self._burst = float(burst)
        self._clock = clock
        self._left: dict[Hashable, tuple[float, float]] = {}  # what is left, and when that was so

    def take(self, who: Hashable) -> bool:
        """Use one up; tell whether one was left."""
        now = self._clock()
        left = self._now(who, now)
        if left < 1:
            return False
        self._left[who] = (left - 1, now)
        if len(self._left) > _MOST_KNOWN:
            self._left = {each: value for each, value in self._left.items() if self._now(each, now) < self._burst}
        return True

    def _now(self, who: Hashable, now: float) -> float:
        left, since = self._left.get(who, (self._burst, now))
        return min(self._burst, left + (now - since) * self._a_second)


def source_of(where: str) -> str:
    """Return what of gRPC's `family:address:port` stands for one household: an IPv4 address, an IPv6 network."""
    host, port = end_of(where)
    try:
        found = ipaddress.IPv6Address(host)
    except ValueError:
        return host or port
    return str(ipaddress.IPv6Network((found, _HOUSE), strict=False))


def end_of(where: str) -> tuple[str, str]:
    """Return host and port of gRPC's `family:address:port`, an IPv4 address as such however it is written."""
    family, _, rest = unquote(where).partition(":")
    host, _, port = rest.rpartition(":")
    host = host.strip("[]").partition("%")[0]
    if family == "ipv6":
        with contextlib.suppress(ValueError):
            host = str(ipaddress.IPv6Address(host).ipv4_mapped or host)
    return host, port
