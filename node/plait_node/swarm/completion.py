"""What a stage adds to the time until a job is done: its chunks of the prompt, its steps, hops, failures.

A prompt goes through the stages in equal chunks, stage k on one while stage k+1 is on the one before; so the first
chunk costs the sum of all stages, each further one the slowest stage. Then every token costs a step of each stage.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Final, NamedTuple

from plait.protocol.ids import Address, Hash

if TYPE_CHECKING:
    from plait_node.swarm.records import NodeFacts, NodeRecord

# A further row of a pass costs this part of a decode step: 512 rows take 22 to 25 steps, in bf16 and in fp32.
_ROW: Final = 0.045
# Two stages are taken to be this part of the sum of their round trips to the worker apart, each bearing its own: 0 for
# stages in one place, 1 for those that are reached only by way of the worker, 0.7 for directions drawn at random.
_APART: Final = 0.6
_NOTICED_S: Final = 2.0  # until a stage that fails is found


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a job asks of a route; without `prompt` it is one decode step."""

    blocks: int
    profiles: tuple[Hash, ...]  # in the payer's order; a tie goes to the earlier
    room: int  # steps of KV room on every stage
    max_price: int  # base units per 1,000,000 steps over all blocks
    hop_s: float = 0.001  # expected time between two stages of which nothing is known
    excluded: frozenset[Address] = frozenset()
    prompt: int = 0  # rows of the prompt that are to be computed
    answer: int = 1  # tokens expected
    chunk: int = 0  # prompt rows in one frame; 0 for all of them

    @property
    def chunks(self) -> int:
        """Return in how many frames the prompt goes through the stages."""
        return max(1, math.ceil(self.prompt / self.chunk)) if self.chunk else 1

    @property
    def steps(self) -> int:
        """Return the passes of one row: the prompt's last chunk brings the first token."""
        return self.answer - 1 if self.prompt else self.answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What this worker found out about stages itself: it outweighs what they announce."""

    rtt_s: Mapping[Address, float] = field(default_factory=dict[Address, float])  # there and back, from here
    factors: Mapping[Address, float] = field(default_factory=dict[Address, float])  # measured step over announced
    doubt: float = 0.0  # 0 to 1: how far a time that was not measured is moved up to the usual, in orders of magnitude
    risks: Mapping[Address, float] = field(default_factory=dict[Address, float])  # chance that a job fails there
    risk: float = 0.0  # of those that nothing is known of


NOTHING_KNOWN: Final = Known()


class Edge(NamedTuple):
    """A stage in the graph of block boundaries."""

    first: int
    last: int
    add_s: float  # to the job, besides further chunks
    chunk_s: float  # of one chunk of the prompt
    price: int  # base units per 1,000,000 steps over its blocks
    busy_s: float  # one decode step, queue included
    step_s: float  # the same, hops and blames included
    record: NodeRecord


def block_micros(stages: Iterable[NodeFacts]) -> float:
    """Return the median announced time of a block, in microseconds; 0 where no stage measured one yet."""
    found = [facts.step_micros / (facts.last - facts.first) for facts in stages if facts.step_micros]
    return median(found) if found else 0.0


class Costs:
    """Reckons stages for one job."""

    def __init__(self, needs: Needs, known: Known, *, typical: float) -> None:
        """Take `typical` microseconds a block for a stage that announces no time."""
        self._known = known
        self._blocks = needs.blocks
        self._typical = typical
        self._steps = needs.steps
        self._passes = needs.steps + bool(needs.prompt)
        self._chunk = 1 + _ROW * (needs.prompt / needs.chunks - 1) if needs.prompt else 0.0
        self._again = 1 + _ROW * (needs.prompt + needs.answer / 2)
        # A stage of unknown distance counts as near as the nearest: it is tried once, and then its distance is known.
        self._hop_s = max(needs.hop_s, min(known.rtt_s.values(), default=0.0) / 2)

    def edge(self, record: NodeRecord, blamed_s: float = 0.0) -> Edge:
        """Return what a stage adds; `blamed_s` is added to each of its steps."""
        facts, owner, known = record.facts, record.owner, self._known
        first, last = facts.first, facts.last
        usual = self._typical * (last - first)
        micros = facts.step_micros or usual
        factor = known.factors.get(owner)
        if factor is None:
            factor = (usual / micros) ** known.doubt if known.doubt and micros < usual else 1.0
        busy_s = micros * factor / 1e6 * (1 + facts.queue)  # jobs in its queue share it
        wait_s = blamed_s
        rtt_s = known.rtt_s.get(owner)
        if rtt_s is None:
            wait_s += self._hop_s
        else:  # its share of the hops of one pass: a way to either neighbour, stage or worker
            ends = (first == 0) + (last == self._blocks)
            wait_s += rtt_s / 2 * (ends + (2 - ends) * _APART)
        chunk_s = self._chunk * busy_s
        add_s = self._steps * busy_s + chunk_s + self._passes * wait_s
        risk = known.risks.get(owner, known.risk)
        if risk:  # noticed after a while, the prompt and on average half of the answer are computed again
            add_s += risk * (_NOTICED_S + self._again * busy_s)
        return Edge(first, last, add_s, chunk_s, facts.price * (last - first), busy_s, busy_s + wait_s, record)
