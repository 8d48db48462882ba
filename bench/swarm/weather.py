"""What lies between two hosts."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Weather"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """Round trip and its jitter in seconds, and the share of packets that is lost; values that cannot be are refused.

    A one-way trip takes half of `rtt_s`, more or less by up to half of `jitter_s`. A host's line carries `bytes_s`
    bytes a second each way, 0 for as many as there are.
    """

    rtt_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0
    bytes_s: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.jitter_s <= self.rtt_s or not 0 <= self.loss < 1 or self.bytes_s < 0:
            raise ValueError(f"{self}: a trip takes no negative time, and some packets arrive")

    @property
    def calm(self) -> bool:
        """Tell whether nothing is held back or lost."""
        return not (self.rtt_s or self.loss or self.bytes_s)

    def __str__(self) -> str:
        rate = f", {8e-6 * self.bytes_s:g} Mbit/s" if self.bytes_s else ""
        return f"RTT {1e3 * self.rtt_s:g} ms, jitter {1e3 * self.jitter_s:g} ms, loss {100 * self.loss:g} %{rate}"
