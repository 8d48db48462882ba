"""Whose turn it is among the priorities of a group: urgent jobs first, and nobody is passed over for ever."""

from __future__ import annotations

from collections.abc import Mapping

from plait_node.broker.face import PRIORITIES

# How many turns in a row a priority that waits may be passed over; the most urgent one needs no such right.
PATIENCE: Mapping[int, int] = {1: 4, 2: 8}


class Turns:
    """The order in which one reader looks for jobs.

    A priority that was not looked at in `patience` turns is looked at first, the longest overdue before the others.
    So of `patience + 2` turns in a row at least one is offered to it, and at least six of nine to the most urgent one.
    """

    def __init__(self, patience: Mapping[int, int] = PATIENCE) -> None:
        self._patience = patience
        self._passed = dict.fromkeys(PRIORITIES, 0)

    def order(self) -> tuple[int, ...]:
        """Return the priorities as they are to be looked at in this turn."""
        late = {each: self._passed[each] - most for each, most in self._patience.items() if self._passed[each] >= most}
        overdue = sorted(late, key=lambda each: (-late[each], each))
        return (*overdue, *(each for each in PRIORITIES if each not in late))

    def served(self, priority: int) -> None:
        """End a turn in which a job of this priority was found: those looked at before it had none."""
        order = self.order()
        place = order.index(priority) + 1
        for each in order[:place]:
            self._passed[each] = 0
        for each in order[place:]:
            self._passed[each] += 1

    def idle(self) -> None:
        """End a turn in which all were looked at and none had a job."""
        self._passed = dict.fromkeys(PRIORITIES, 0)
