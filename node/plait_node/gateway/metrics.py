"""What an operator sees of the gateway: base units, totals, no rates."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


class GatewayMetrics:
    """One registry per gateway, so that two in one process do not mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.quotes = Counter("plait_gateway_quotes", "Quotes signed.", registry=self.registry)
        self.jobs = Counter("plait_gateway_jobs", "Jobs by how they ended.", ["outcome"], registry=self.registry)
        self.refused = Counter("plait_gateway_refused", "Calls refused, by code.", ["code"], registry=self.registry)
        self.dropped = Counter(
            "plait_gateway_dropped_events", "Worker events not relayed, by reason.", ["reason"], registry=self.registry
        )
        self.prompts = Counter(
            "plait_gateway_prompts", "Sealed prompts of on-chain requests passed on.", registry=self.registry
        )
        self.vouchers = Counter("plait_gateway_vouchers", "Vouchers journaled.", registry=self.registry)
        self.paid = Counter("plait_gateway_paid_base_units", "Base units promised to us.", registry=self.registry)
        self.taken_over = Counter(
            "plait_gateway_channels_taken_over", "Channels whose owner was gone.", registry=self.registry
        )
        self.relays = Gauge("plait_gateway_open_answers", "Answers being relayed.", registry=self.registry)
        self.streams = Gauge("plait_gateway_streams", "Event streams open to payers.", registry=self.registry)
        self.first_chunk = Histogram(
            "plait_gateway_first_chunk_seconds",
            "From the job's acceptance to its first chunk's delivery.",
            buckets=(0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 30, 60),
            registry=self.registry,
        )

    def page(self) -> bytes:
        """Return the page that Prometheus reads."""
        return generate_latest(self.registry)
