"""Where a joining node helps most, and where a swarm is the slowest. Pure functions over node records.

Routes tile a model's blocks, so stages are edges between block boundaries, and what a swarm can do is the greatest
flow of steps from the first boundary to the last. A block's own throughput, the sum over its stages, is never less.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from plait_node.swarm.completion import block_micros

if TYPE_CHECKING:
    from collections.abc import Iterable

    from plait.protocol.ids import Hash
    from plait_node.swarm.records import NodeRecord

_STEEP: Final = 4  # a block half as fast as another counts 16 times as much
_NEARLY: Final = 1.05
_NOBODY: Final = 1e-3  # of the joining node's rate is what a block without any stage counts as
_EQUAL: Final = 1e-9  # rates that differ by less, in parts of the larger, are the same


@dataclass(frozen=True, slots=True, kw_only=True)
class Bottleneck:
    """The weakest blocks `[first, last)` of a swarm, and what it can do; rates in decode steps a second."""

    first: int
    last: int
    steps_s: float  # of the weakest blocks, 0 where nobody serves them
    routed_steps_s: float  # of whole routes; less where stages do not follow one another


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """The blocks `[first, last)` that a joining node is to serve."""

    first: int
    last: int
    moved: int  # bytes to fetch, or blocks where their sizes were not given
    routed_steps_s: float  # decode steps a second of whole routes once it serves
    gained_steps_s: float


def bottleneck(records: Iterable[NodeRecord], blocks: int, profile: Hash) -> Bottleneck:
    """Return the weakest blocks of those that serve `profile`: the first of equally weak runs."""
    stages = _stages(records, blocks, profile)
    rates = _block_rates(stages, blocks)
    weakest = min(rates)
    first = next(block for block, rate in enumerate(rates) if _same(rate, weakest))
    last = next((block for block in range(first, blocks) if not _same(rates[block], weakest)), blocks)
    return Bottleneck(first=first, last=last, steps_s=weakest, routed_steps_s=_Flow(stages, blocks).push(0, blocks))


def choose_blocks(
    records: Iterable[NodeRecord],
    blocks: int,
    profile: Hash,
    *,
    room: int,
    block_s: float,
    held: Collection[int] = (),
    sizes: Sequence[int] | None = None,
) -> Placement:
    """Return the blocks that a node with room for `room` of them, each taking `block_s` seconds a step, should serve.

    Those which raise the throughput of whole routes most, and of those that relieve other weak blocks as well those
    with the fewest bytes to fetch: `sizes` are the bytes of each block, `held` the blocks that the node has already.
    Where one node can raise nothing, it goes on where routes break off. Nobody else moves. Raise `ValueError` for no
    room or no time.
    """
    if room < 1 or block_s <= 0 or (sizes is not None and len(sizes) != blocks):
        raise ValueError(f"room for {room} blocks, {block_s} s a block: both must be above 0, with a size per block")
    bytes_of = [0 if block in held else (sizes[block] if sizes else 1) for block in range(blocks)]
    stages = _stages(records, blocks, profile, block_s=block_s)
    flow = _Flow(stages, blocks)
    before = flow.push(0, blocks)
    spans = [
        _Span(first, last, 1 / (block_s * (last - first)), sum(bytes_of[first:last]))
        for first in range(blocks)
        for last in range(first + 1, min(first + room, blocks) + 1)
    ]
    raising, gained = _most_raising(flow, spans, blocks)
    nobody = min(span.rate for span in spans) * _NOBODY
    rates = [rate or nobody for rate in _block_rates(stages, blocks)]
    best = _lightest(raising, rates) if raising else _going_on(flow, spans, rates)
    return Placement(
        first=best.first, last=best.last, moved=best.moved, routed_steps_s=before + gained, gained_steps_s=gained
    )


@dataclass(frozen=True, slots=True)
class _Span:
    first: int
    last: int
    rate: float  # steps a second
    moved: int


class _Flow:
    """Steps a second between boundaries, what was pushed taken off."""

    def __init__(self, stages: Iterable[_Span], blocks: int) -> None:
        self._left: list[dict[int, float]] = [{} for _ in range(blocks + 1)]
        for stage in stages:
            self.add(stage)

    def add(self, stage: _Span) -> None:
        """Add a stage."""
        going = self._left[stage.first]
        going[stage.last] = going.get(stage.last, 0.0) + stage.rate
        self._left[stage.last].setdefault(stage.first, 0.0)

    def copy(self) -> _Flow:
        """Return a copy that can be pushed on its own."""
        made = _Flow((), 0)
        made._left = [dict(going) for going in self._left]
        return made

    def push(self, source: int, target: int) -> float:
        """Push all that goes from one boundary to another; return it."""
        pushed = 0.0
        while path := self._path(source, target):
            amount = min(self._left[start][end] for start, end in path)
            for start, end in path:
                self._left[start][end] -= amount
                self._left[end][start] += amount
            pushed += amount
        return pushed

    def reached(self, source: int) -> set[int]:
        """Return the boundaries to which anything can be pushed from `source`."""
        return set(self._search(source, None))

    def reaching(self, target: int) -> set[int]:
        """Return the boundaries from which anything can be pushed to `target`."""
        return {at for at in range(len(self._left)) if target in self._search(at, target)}

    def _path(self, source: int, target: int) -> list[tuple[int, int]]:
        came = self._search(source, target)
        path: list[tuple[int, int]] = []
        at = target
        while at in came and at != source:
            path.append((came[at], at))
            at = came[at]
        return path

    def _search(self, source: int, target: int | None) -> dict[int, int]:
        """Return for each boundary reached the one before it, breadth first, up to `target`."""
        came = {source: source}
        queue = deque([source])
        while queue and target not in came:
            at = queue.popleft()
            for end, rate in self._left[at].items():
                if rate > _EQUAL and end not in came:
                    came[end] = at
                    queue.append(end)
        return came


def _most_raising(flow: _Flow, spans: Sequence[_Span], blocks: int) -> tuple[list[_Span], float]:
    """Return the spans that add most to a flow already pushed, and how much; none where no single span adds any."""
    arriving = {at: flow.copy().push(0, at) if at else math.inf for at in flow.reached(0)}
    leaving = {at: flow.copy().push(at, blocks) if at < blocks else math.inf for at in flow.reaching(blocks)}
    bounded = [
        (min(span.rate, arriving[span.first], leaving[span.last]), span)
        for span in spans
        if span.first in arriving and span.last in leaving
    ]
    best: list[_Span] = []
    gained = 0.0
    for bound, span in sorted(bounded, key=lambda each: -each[0]):
        if bound < gained and not _same(bound, gained):
            break
        trial = flow.copy()
        trial.add(span)
        gain = trial.push(0, blocks)
        if _same(gain, gained):
            best += [span] if best else []
        elif gain > gained:
            best, gained = [span], gain
    return best, gained


def _lightest(spans: Sequence[_Span], rates: Sequence[float]) -> _Span:
    """Return the span with the fewest bytes of those that relieve the other weak blocks as well, or nearly so."""
    loads = [_load(span, rates) for span in spans]
    most = min(loads) * _NEARLY
    able = [(span.moved, load, span.first, span.last, span) for load, span in zip(loads, spans, strict=True)]
    return min(each for each in able if each[1] <= most)[-1]


def _going_on(flow: _Flow, spans: Sequence[_Span], rates: Sequence[float]) -> _Span:
    """Return the span that prepares best for the next node to join.

    It begins where steps arrive, or ends where they can leave, if any does; of those it relieves the weak blocks most.
    """
    arriving, leaving = flow.reached(0), flow.reaching(len(rates))

    def order(span: _Span) -> tuple[int, float, int, int]:
        joined = (span.first in arriving) + (span.last in leaving)
        return -joined, _load(span, rates), span.moved, span.first

    return min(spans, key=order)


def _load(span: _Span, rates: Sequence[float]) -> float:
    """Return how weak a swarm's blocks are all together with this span, the weakest of them counting by far the most.

    To look at the weakest alone would waste on it what others need soon.
    """
    return math.fsum(  # exact, so that equal choices are equal
        (rate + span.rate if span.first <= block < span.last else rate) ** -_STEEP for block, rate in enumerate(rates)
    )


def _stages(records: Iterable[NodeRecord], blocks: int, profile: Hash, *, block_s: float = 1.0) -> list[_Span]:
    """Return the stages of a profile; one not measured yet counts as usual, and takes `block_s` where none was."""
    fit = [each.facts for each in records if each.facts.profile == profile and each.facts.last <= blocks]
    typical = block_micros(fit) or block_s * 1e6
    return [
        _Span(facts.first, facts.last, 1e6 / (facts.step_micros or typical * (facts.last - facts.first)), 0)
        for facts in fit
    ]


def _block_rates(stages: Iterable[_Span], blocks: int) -> list[float]:
    rates = [0.0] * blocks
    for stage in stages:
        for block in range(stage.first, stage.last):
            rates[block] += stage.rate
    return rates


def _same(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=_EQUAL, abs_tol=_EQUAL)
