"""Which groups a worker can fall into: its model, its class (device, room, pace) and its owner's tier."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from plait.protocol.ids import Group, Hash, group_id

MOST_TIER = 15
# Smallest room of each class, in steps of KV on every stage of a route; wide, so that a worker seldom changes class.
ROOMS: Mapping[str, int] = {"long": 16_384, "medium": 4_096, "short": 0}
# Longest time of one decode step of each class, in seconds.
PACES: Mapping[str, float] = {"fast": 0.05, "steady": 0.2, "slow": float("inf")}
# A class is left only when the measure has passed its border by this share: groups must not flicker.
_MARGIN = 0.1
# What jobs take of a worker's room and pace is no other class: the best of the last minutes counts.
_REMEMBERED_S = 600.0


def device_class(device: str, *, room: int, step_s: float, before: str = "") -> str:
    """Return the class of a worker whose route has this room and step time; `before` is what it was in."""
    words = before.split("-")
    kept_room, kept_pace = words[-2:] if len(words) >= 3 else ("", "")
    rooms = (name for name, least in ROOMS.items() if room >= least * (1 - _MARGIN * (name == kept_room)))
    paces = (name for name, most in PACES.items() if step_s <= most * (1 + _MARGIN * (name == kept_pace)))
    return f"{device}-{next(rooms)}-{next(paces)}"


class ClassMeasure:
    """A worker's class, from the largest room and the shortest step time that it had within ten minutes."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._seen: deque[tuple[float, int, float]] = deque()
        self.name = ""

    def observe(self, now: float, *, room: int, step_s: float) -> str:
        """Take a measure of the best route now, and return the class."""
        self._seen.append((now, room, step_s))
        while self._seen[0][0] < now - _REMEMBERED_S:
            self._seen.popleft()
        room, step_s = max(each[1] for each in self._seen), min(each[2] for each in self._seen)
        self.name = device_class(self._device, room=room, step_s=step_s, before=self.name)
        return self.name


def groups_of(model: Hash, device: str, *, cohort: int = 0) -> tuple[Group, ...]:
    """Return every group that workers of a model on a device can be in, whatever their tier and class become."""
    return tuple(
        group_id(model, f"{device}-{room}-{pace}", tier, cohort)
        for tier in range(MOST_TIER + 1)
        for room in ROOMS
        for pace in PACES
    )
