"""Who holds an answer up: asked when a step takes far longer than it should, told by the stages themselves.

A stage that got rows and did not give them out holds them. It is at fault when that is so again and again: in decode at
each of several slow steps, in a prompt while nothing moves between two looks. Where all steps were slow from the first
on, there is no better pace to go by: then it is at fault if it holds the rows nearly whenever one looks. So it is in a
run of steps each of which is short and yet far slower than usual: together they lose as much as a long one. A link that
is silent ends by itself.
"""

from __future__ import annotations

import statistics
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from plait.protocol.ids import Address

if TYPE_CHECKING:
    from plait.protocol.pb import stage_pb2
    from plait_node.worker.plan import Decision

__all__ = ["Avoidable", "Watch"]

Avoidable = Callable[[Address], Awaitable[bool]]  # whether an answer could go on without a stage

_TIMES = 5.0  # what a step should take, so often: it is slow
_LEAST_S = 0.3  # no step is slow by itself that takes less
_WAKE_S = 0.02  # no step is slow in a run that takes less
_VOTES = 3
_REMEMBERED = 128  # steps: a run is found long before it is what is usual
_LOOKS, _MOST_OF_THEM = 6, 5  # of the last looks, how many must find the same stage
_PAUSE_S = 10.0  # where nobody can take a slow stage's place


class Watch:
    """Follows the steps of one attempt over so many `stages`; times in seconds of the event loop's clock."""

    def __init__(self, *, stages: int, expected_s: float, first_s: float, now: float) -> None:
        """Expect a step each `expected_s`, and the first token within `first_s`; zero where nothing is known."""
        self._stages = stages
        self._expected_s = expected_s
        self._first_s = first_s
        self._took: deque[float] = deque(maxlen=_REMEMBERED)
        self._last = self._asked = now
        self._decoding = False
        self._places: dict[int, tuple[int, int]] = {}
        self._before: dict[int, tuple[int, int]] = {}
        self._votes: Counter[int] = Counter()
        self._held: deque[int | None] = deque(maxlen=_LOOKS)
        self._run: deque[int | None] = deque(maxlen=_LOOKS)
        self._lost_s = 0.0  # in the run, since the stages were asked
        self._in_run = False  # they were asked because of it
        self._paused_until = now
        self._avoidable: Callable[[int], Awaitable[bool]] = _always

    @classmethod
    def of(cls, decision: Decision, *, now: float, avoidable: Avoidable) -> Watch:
        """Expect of an attempt what its route announced and the selector predicted."""
        owners = [record.owner for record in decision.route.records]
        watch = cls(
            stages=len(owners),
            expected_s=decision.route.step_s,
            first_s=decision.choice.predicted.get("first_token_s", 0.0),
            now=now,
        )
        watch._avoidable = lambda place: avoidable(owners[place])
        return watch

    @property
    def limit_s(self) -> float:
        """Return after how long without a token the stages are asked."""
        if not self._decoding:
            return max(2.0, _TIMES * self._first_s)
        return max(_LEAST_S, _TIMES * self._pace_s())

    @property
    def wake_s(self) -> float:
        """Return after how long without a token it is worth a look."""
        return max(_WAKE_S, _TIMES * self._pace_s()) if self._decoding else self.limit_s

    def moved(self, now: float) -> None:
        """Note that tokens came."""
        took = now - self._last
        if self._slow_in_run(now):
            self._lost_s += now - max(self._last, self._asked)
        else:
            self._lost_s = 0.0
            self._run.clear()
        if self._votes and self._decoding and took <= self.limit_s:
            self._votes -= Counter(dict.fromkeys(self._votes, 1))
        if self._decoding:
            self._took.append(took)
        self._decoding = True
        self.rest(now)

    def rest(self, now: float) -> None:
        """Begin to wait anew: nothing was asked of the stages."""
        self._last = self._asked = now
        self._before = {}

    def asks(self, now: float) -> bool:
        """Tell whether it is time to ask the stages where they are."""
        if now < self._paused_until:
            return False
        late = now - self._asked >= self.limit_s
        lost_s = self._lost_s + now - max(self._last, self._asked)
        if not late and not (self._slow_in_run(now) and lost_s >= _LEAST_S):
            return False
        self._in_run = not late
        self._asked, self._lost_s = now, 0.0
        self._places = {}
        return True

    async def judge(self, place: int, at: stage_pb2.At) -> int | None:
        """Take a stage's answer; return who is at fault and can be done without: a slow stage is better than none."""
        holder = self.told(place, at)
        if holder is None or await self._avoidable(holder):
            return holder
        self._paused_until = self._asked + _PAUSE_S
        for each in (self._votes, self._held, self._run):
            each.clear()
        return None

    def told(self, place: int, at: stage_pb2.At) -> int | None:
        """Take a stage's answer; return who is at fault once all answered and it is certain enough."""
        self._places[place] = (at.came, at.given)
        if len(self._places) < self._stages:
            return None
        places, before = self._places, self._before
        self._places, self._before = {}, places
        holder = next((each for each in range(self._stages) if places[each][0] > places[each][1]), None)
        if self._in_run or (self._decoding and self._never_quick()):
            return _nearly_always(self._run if self._in_run else self._held, holder)
        if holder is None or (not self._decoding and before.get(holder) != places[holder]):
            return None
        self._votes[holder] += 1
        return holder if self._votes[holder] >= _VOTES else None

    def _pace_s(self) -> float:
        return self._expected_s if self._never_quick() else max(self._expected_s, self._usual_s())

    def _slow_in_run(self, now: float) -> bool:
        """Tell whether this step is one of a run that are short and far slower than usual."""
        known = self._decoding and bool(self._took) and not self._never_quick()
        return known and now - self._last >= self.wake_s

    def _usual_s(self) -> float:
        return statistics.median(self._took) if self._took else 0.0

    def _never_quick(self) -> bool:
        """Tell whether steps are usually slow against what the route announced."""
        return 0 < _TIMES * self._expected_s < self._usual_s() and self._usual_s() > _LEAST_S


def _nearly_always(held: deque[int | None], holder: int | None) -> int | None:
    held.append(holder)
    return holder if held.count(holder) >= _MOST_OF_THEM else None


async def _always(_: int) -> bool:
    return True
