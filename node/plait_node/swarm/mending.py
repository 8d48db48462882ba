"""Replace a lost stage: others that tile exactly its blocks, while the rest of the route stays as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plait_node.swarm.completion import NOTHING_KNOWN, Known
from plait_node.swarm.route import Span, plan_span

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from plait.protocol.ids import Address
    from plait.protocol.messages import Stage
    from plait_node.swarm.completion import Needs
    from plait_node.swarm.records import NodeRecord


def mend(
    records: Iterable[NodeRecord],
    kept: Sequence[Stage],
    lost: Address,
    needs: Needs,
    *,
    blamed_s: Mapping[Address, float] | None = None,
    known: Known = NOTHING_KNOWN,
) -> tuple[NodeRecord, ...]:
    """Return the best records that tile, in order, the blocks that only `lost` served.

    `kept` are the other stages of the route (a stage of `lost` among them is passed over), `needs.profiles` is the
    route's one profile, `needs.max_price` still bounds the whole route. A node serves one stage of a route, so no
    owner of a kept stage is taken. Raise `NoRouteError` when nobody else can take over, `ValueError` when the kept
    stages do not leave one gap.
    """
    others = sorted((stage for stage in kept if stage.node != lost), key=lambda stage: stage.first)
    first, last = _gap(others, needs.blocks)
    span = Span(
        first=first,
        last=last,
        stages=len(others),
        price=sum(stage.price * (stage.last - stage.first) for stage in others),
        taken=frozenset({lost, *(stage.node for stage in others)}),
    )
    return plan_span(records, needs, span, blamed_s=blamed_s, known=known).records


def _gap(stages: Sequence[Stage], blocks: int) -> tuple[int, int]:
    """Return the one range `[first, last)` that these stages, in order, leave open."""
    edges = [0, *(edge for stage in stages for edge in (stage.first, stage.last)), blocks]
    gaps = [(left, right) for left, right in zip(edges[::2], edges[1::2], strict=True) if left != right]
    if len(gaps) != 1 or gaps[0][0] > gaps[0][1]:
        raise ValueError(f"the kept stages leave open {gaps} of {blocks} blocks, not the one range of a lost stage")
    return gaps[0]
