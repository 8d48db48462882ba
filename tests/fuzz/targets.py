"""Every target, and how many of a run's cases each of them gets."""

from __future__ import annotations

from math import ceil

from tests.fuzz import answers, gateway, protocol, records, wire
from tests.fuzz.machine import Target


def every() -> list[Target]:
    """Return all targets; none of them has started anything yet."""
    return [target for part in (wire, records, protocol, answers, gateway) for target in part.targets()]


def shares(targets: list[Target], cases: int) -> dict[str, int]:
    """Return how many cases each target gets so that all together get at least `cases`."""
    whole = sum(target.share for target in targets)
    return {target.name: ceil(cases * target.share / whole) for target in targets}
