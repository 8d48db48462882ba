"""What a worker, which sees every record of its model, says of the swarm: where it is weakest, and what it can do."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily

from plait.protocol.ids import to_hex
from plait_node.app.metrics import gauge
from plait_node.swarm import bottleneck

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from plait.protocol.manifest import Manifest
    from plait_node.swarm import Directory

__all__ = ["swarm_numbers"]


def swarm_numbers(directory: Directory, manifest: Manifest) -> Iterator[Metric]:
    """Yield the weakest blocks and the rates of each profile that is served; of all of them where none is.

    Of blocks that are all served nothing is said until somebody has measured some.
    """
    yield _dropped(directory)
    records = directory.known(manifest.model_id)
    served = {each.facts.profile for each in records}
    measured = {each.facts.profile for each in records if each.facts.step_micros}
    for profile in manifest.profiles:
        if served and profile.profile_id not in served:
            continue
        weak = bottleneck(records, manifest.blocks, profile.profile_id)
        if weak.steps_s and profile.profile_id not in measured:
            continue
        number = partial(gauge, model=to_hex(manifest.model_id), profile=profile.name)
        yield number("plait_swarm_bottleneck_steps_s", "Decode steps a second of the weakest blocks.", weak.steps_s)
        yield number("plait_swarm_bottleneck_first_block", "The first of the weakest blocks.", weak.first)
        yield number("plait_swarm_bottleneck_last_block", "The last of the weakest blocks.", weak.last - 1)
        yield number("plait_swarm_routed_steps_s", "Decode steps a second of whole routes.", weak.routed_steps_s)


def _dropped(directory: Directory) -> Metric:
    made = CounterMetricFamily("plait_records_dropped", "Records and answers that were refused.", labels=["reason"])
    for reason, count in sorted(directory.counted().items()):
        made.add_metric([reason], count)
    return made
