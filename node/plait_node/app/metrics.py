"""What a node says of itself while it runs: a page of numbers for Prometheus and `plait node status`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, write_to_textfile
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from plait_node.engine.load import Histogram

__all__ = ["NodeMetrics", "gauge", "histogram"]

_EVERY_S: Final = 5.0

log = logging.getLogger(__name__)


def gauge(name: str, what: str, value: float, **labels: str) -> Metric:
    """Return one number with its labels."""
    made = GaugeMetricFamily(name, what, labels=list(labels))
    made.add_metric(list(labels.values()), value)
    return made


def histogram(name: str, what: str, counted: Histogram) -> Metric:
    """Return how many values were at most each bound, their number and their sum."""
    bounds = [*(repr(float(bound)) for bound in counted.bounds), "+Inf"]
    return HistogramMetricFamily(
        name, what, buckets=list(zip(bounds, accumulate(counted.counts), strict=True)), sum_value=counted.total
    )


class NodeMetrics(Collector):
    """The numbers of every role, read anew for each page, on the event loop."""

    def __init__(self) -> None:
        """Begin with none; one registry per node, so that two in one process do not mix."""
        self._reads: list[Callable[[], Iterable[Metric]]] = []
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def add(self, read: Callable[[], Iterable[Metric]]) -> None:
        """Have a role's numbers on the page from now on."""
        self._reads.append(read)

    def collect(self) -> Iterator[Metric]:
        """Yield every role's numbers."""
        for read in self._reads:
            yield from read()

    async def run(self, file: Path) -> None:
        """Write the page into `file` every few seconds until cancelled, and take it away then."""
        try:
            while True:
                try:
                    write_to_textfile(str(file), self._registry)
                except OSError as error:  # a full disk is no reason to serve nobody
                    log.warning("numbers not written file=%s error=%s", file, error)
                await asyncio.sleep(_EVERY_S)
        finally:
            await asyncio.to_thread(file.unlink, missing_ok=True)
