"""Predict the time to the first token from neighbouring measurements: straight lines between them, nothing learned."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from plait_node.selector.history import Measurement

__all__ = ["first_token_s", "per_token_s", "uncertainty"]

Point = tuple[float, float]


def first_token_s(measured: Sequence[Measurement], *, prompt_tokens: int, computed_tokens: int) -> float:
    """Return seconds to the first token, from measurements of one method, amount and number of stages.

    First along the share of the prompt that is computed, for each measured prompt length; then along the length.
    """
    share = computed_tokens / prompt_tokens
    by_length: Mapping[int, list[Point]] = _grouped(
        (row.prompt_tokens, (row.computed_tokens / row.prompt_tokens, row.ttft_s)) for row in measured
    )
    lengths = [(float(length), _line(sorted(points), share)) for length, points in sorted(by_length.items())]
    return _line(lengths, float(prompt_tokens))


def per_token_s(measured: Iterable[Measurement]) -> float:
    """Return seconds a further token: the methods do not touch it, so all measurements count."""
    return median(row.tpot_s for row in measured)


def uncertainty(measured: Iterable[Measurement]) -> float:
    """Return by which share of a time the difference of two medians may be chance.

    A median of n normal values errs by 0.93 times their middle half's width over the root of n; two differ by 1.4 of
    that. The median over all cells is taken.
    """
    widths = [1.3 * (row.ttft_high_s - row.ttft_low_s) / row.ttft_s / math.sqrt(row.repeats) for row in measured]
    return median(widths)


def _grouped(pairs: Iterable[tuple[int, Point]]) -> dict[int, list[Point]]:
    found: dict[int, list[Point]] = defaultdict(list)
    for key, point in pairs:
        found[key].append(point)
    return found


def _line(points: Sequence[Point], at: float) -> float:
    """Return the value at `at` on lines between points; beyond the ends the last line goes on, never below zero.

    A single point is scaled in proportion.
    """
    if len(points) == 1:
        x, y = points[0]
        return y * at / x if x else y
    index = min(max(bisect_left([x for x, _ in points], at), 1), len(points) - 1)
    (x0, y0), (x1, y1) = points[index - 1 : index + 1]
    guess = y0 + (y1 - y0) * (at - x0) / (x1 - x0)
    # A falling line would end below zero, and a short prompt still takes as long as a fraction of the shortest.
    return max(guess, min(y for _, y in points) * min(1.0, at / points[0][0]))
