"""What a worker measured itself of stages: how their steps compare with what they announce, and how jobs ended there.

A worker sees the time of a whole step, not of each stage. What a step took beyond what was expected is shared among
the stages of its route by how little is known of each: a Kalman filter with one number a node, measured over
announced step time. A stage that announces much less than is usual is trusted less: its error may be as large, in
seconds, as that of a stage that announces what is usual.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from plait_node.swarm.completion import Costs, Known, Needs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from plait.protocol.ids import Address
    from plait_node.swarm.records import NodeRecord
    from plait_node.swarm.route import Route

_T = TypeVar("_T")

_REMEMBERED: Final = 16_384  # nodes
_DOUBT: Final = 0.5  # standard deviation of an announcement, in parts of the step time
_NOISE: Final = 0.1  # of a job's mean step, in parts of it
_FAR_OFF: Final = 0.25  # by which hops differ from what round trips say
_DISBELIEF: Final = 0.5  # see `Known.doubt`
_SURE: Final = 0.03  # no factor is known better
_HALF_LIFE_MIN: Final = 15.0  # of a factor, in orders of magnitude
_DRIFT: Final = 0.05  # by which the deviation of a factor grows in a minute
_LEAST: Final = 0.02
_MOST: Final = 1_000.0
_NEWCOMER_RISK: Final = 0.04  # chance that a job fails on a node without any history
_NEWCOMER_JOBS: Final = 10.0  # that this chance is worth
_FADES: Final = 0.98  # per job: old ones count less


@dataclass(frozen=True, slots=True)
class _Speed:
    factor: float
    deviation: float
    at: float

    def faded(self, now: float) -> _Speed:
        """Return what is left of it: an overloaded stage, and a liar, is tried again after a while."""
        minutes = max(0.0, now - self.at) / 60
        return _Speed(self.factor**0.5 ** (minutes / _HALF_LIFE_MIN), self.deviation + _DRIFT * minutes, now)


@dataclass(frozen=True, slots=True)
class _Past:
    jobs: float = 0.0
    failed: float = 0.0


class SpeedBook:
    """Factors and failures of the nodes that this worker used; `known` hands them to the planner."""

    def __init__(self) -> None:
        """Start with nothing."""
        self._speeds: OrderedDict[Address, _Speed] = OrderedDict()
        self._pasts: OrderedDict[Address, _Past] = OrderedDict()
        self._trips: OrderedDict[Address, float] = OrderedDict()
        self._trust: Mapping[Address, float] = {}

    def took(self, route: Route, step_s: float, *, now: float, rtt_s: Mapping[Address, float] | None = None) -> None:
        """Learn from a job's steps of one row: `step_s` is their mean time in seconds, hops included.

        A job with guesses ahead has no such steps; it teaches nothing. `rtt_s` are the round trips to its stages.
        """
        self.reached(rtt_s or {})
        typical = max(_announced(record) for record in route.records)
        costs = Costs(_one_step(route), Known(rtt_s=self._trips), typical=typical)
        edges = [costs.edge(record) for record in route.records]
        past = [self._speed(record, typical, now=now) for record in route.records]
        waits_s = sum(edge.step_s - edge.busy_s for edge in edges)
        missed_s = step_s - waits_s - sum(edge.busy_s * speed.factor for edge, speed in zip(edges, past, strict=True))
        doubts = [(edge.busy_s * speed.deviation) ** 2 for edge, speed in zip(edges, past, strict=True)]
        noise = (_NOISE * step_s) ** 2 + (_FAR_OFF * waits_s) ** 2
        if sum(doubts) and missed_s**2 > sum(doubts) + noise:  # more was wrong than was thought possible
            surprise = (missed_s**2 - noise) / sum(doubts)
            doubts = [doubt * surprise for doubt in doubts]
        for edge, speed, doubt in zip(edges, past, doubts, strict=True):
            if edge.busy_s and edge.record.owner not in route.guessed:  # else there is nothing to compare with
                share = doubt / (sum(doubts) + noise)
                factor = min(_MOST, max(_LEAST, speed.factor + share * missed_s / edge.busy_s))
                deviation = max(_SURE * factor, (doubt * (1 - share)) ** 0.5 / edge.busy_s)
                _keep(self._speeds, edge.record.owner, _Speed(factor, deviation, now))

    def reached(self, rtt_s: Mapping[Address, float]) -> None:
        """Learn how far nodes are: round trips in seconds."""
        for owner, trip_s in rtt_s.items():
            _keep(self._trips, owner, trip_s)

    def ended(self, owners: Iterable[Address], *, failed: Address | None = None) -> None:
        """Learn that a job ended on these nodes, well but for the one it failed on."""
        for owner in owners:
            past = self._pasts.get(owner, _Past())
            _keep(self._pasts, owner, _Past(past.jobs * _FADES + 1, past.failed * _FADES + (owner == failed)))

    def trust(self, tiers: Mapping[Address, int]) -> None:
        """Take the tiers that `Reputation` gives nodes, 0 to 15: each halves the risk that a node begins with."""
        self._trust = {owner: 0.5**tier for owner, tier in tiers.items()}

    def factor(self, owner: Address, *, now: float) -> float | None:
        """Return measured over announced step time, None for a node that was not used yet."""
        speed = self._speeds.get(owner)
        return speed.faded(now).factor if speed is not None else None

    def risk(self, owner: Address) -> float:
        """Return the chance that a job fails on a node, by its history here, and by its reputation before that."""
        past = self._pasts.get(owner, _Past())
        newcomer = _NEWCOMER_RISK * self._trust.get(owner, 1.0)
        return (past.failed + newcomer * _NEWCOMER_JOBS) / (past.jobs + _NEWCOMER_JOBS)

    def known(self, *, now: float, rtt_s: Mapping[Address, float] | None = None) -> Known:
        """Return what the planner is to weigh, with the round trips that its caller knows now."""
        factors = {owner: speed.faded(now).factor for owner, speed in self._speeds.items()}
        return Known(
            rtt_s={**self._trips, **(rtt_s or {})},
            factors=factors,
            doubt=_DISBELIEF,
            risks={owner: self.risk(owner) for owner in {*self._pasts, *self._trust}},
            risk=_NEWCOMER_RISK,
        )

    def _speed(self, record: NodeRecord, typical: float, *, now: float) -> _Speed:
        """Return what is thought of a stage before its step is counted."""
        speed = self._speeds.get(record.owner)
        if speed is not None:
            return speed.faded(now)
        announced = _announced(record) or typical
        return _Speed(1.0, _DOUBT * typical / announced if announced else _DOUBT, now)


def _keep(book: OrderedDict[Address, _T], owner: Address, value: _T) -> None:
    """Write an entry; forget the one that was not written for longest where there are too many."""
    book[owner] = value
    book.move_to_end(owner)
    while len(book) > _REMEMBERED:
        book.popitem(last=False)


def _announced(record: NodeRecord) -> float:
    """Return a stage's announced time of a block, in microseconds."""
    return record.facts.step_micros / (record.facts.last - record.facts.first)


def _one_step(route: Route) -> Needs:
    return Needs(blocks=route.records[-1].facts.last, profiles=(route.profile,), room=0, max_price=0)
