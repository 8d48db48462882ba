"""What the proxy may spend, what running requests may still cost, and what was spent; amounts in base units."""

from __future__ import annotations

from dataclasses import dataclass

from plait.proxy.errors import LimitError


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the user lets the proxy spend: for one request, and in all while the process lives."""

    per_request: int
    total: int


class Spending:
    """Holds back what a request can cost before anything is signed for it, and books what it did cost."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.spent = 0
        self.held = 0
        self.requests = 0

    @property
    def left(self) -> int:
        """Return what a next request may cost."""
        return max(0, self.limits.total - self.spent - self.held)

    def hold(self, price: int) -> Hold:
        """Hold back `price`, the most that a request can cost; raise `LimitError` that names the limit in the way."""
        limits = self.limits
        if price > limits.per_request:
            raise LimitError(
                "max_per_request",
                f"this request can cost {price} base units, and the limit for one request is {limits.per_request}; "
                "lower max_tokens, or start the proxy with a higher --max-per-request",
            )
        if price > self.left:
            raise LimitError(
                "max_total",
                f"this request can cost {price} base units; of the limit of {limits.total} in all {self.spent} are "
                f"spent and running requests hold {self.held}; lower max_tokens, or start the proxy with a higher "
                "--max-total",
                retry=self.spent + price <= limits.total,
            )
        self.held += price
        self.requests += 1
        return Hold(self, price)

    def to_dict(self) -> dict[str, object]:
        """Return the books for JSON, amounts as decimal text."""
        return {
            "unit": "base units of the token",
            "max_per_request": str(self.limits.per_request),
            "max_total": str(self.limits.total),
            "spent": str(self.spent),
            "held": str(self.held),
            "left": str(self.left),
            "requests": self.requests,
        }


class Hold:
    """One request's part of the total until it ended."""

    def __init__(self, spending: Spending, price: int) -> None:
        self._spending, self._price, self._open = spending, price, True

    def settle(self, cost: int) -> None:
        """Give back what was held and book what the request cost; only the first call counts."""
        if self._open:
            self._open = False
            self._spending.held -= self._price
            self._spending.spent += cost
