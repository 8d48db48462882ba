"""Bar the methods whose output check failed in what was measured here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Final

from plait_node.selector.barred import Barred
from plait_node.selector.live import BARRED
from plait_node.selector.rows import Row

__all__ = ["bar_wrong", "wrong"]

# Rounded weights may go another way at any close call; text that has nothing to do with the exact answer agrees in 0.
_LEAST: Final = 0.1


def wrong(rows: Iterable[Row]) -> Mapping[str, str]:
    """Return the methods and types of weights that answered wrongly, each with the reason.

    An exact candidate has to give every token of "none"; a rounded one a tenth of them before its first other one.
    The method to blame is the one that no passing candidate has.
    """
    agreed: dict[str, list[Row]] = {}
    for row in rows:
        if row.outcome.agreement >= 0:
            agreed.setdefault(row.candidate.name, []).append(row)
    failed: dict[str, str] = {}
    passed: set[str] = set()
    for name, measured in agreed.items():
        mean = fmean(row.outcome.agreement for row in measured)
        if mean >= (1.0 if measured[0].candidate.exact else _LEAST):
            passed |= _parts(measured[0])
        else:
            failed[name] = f"{mean:.0%} of the tokens of undisturbed fp32 in {len(measured)} measured cells, as {name}"
    return {part: reason for name, reason in failed.items() for part in sorted(_parts(agreed[name][0]) - passed)}


def bar_wrong(rows: Iterable[Row], folder: Path) -> Mapping[str, str]:
    """Bar them in a node's selector folder; return what was barred. Raise `OSError`."""
    found, barred = wrong(rows), Barred(folder / BARRED)
    for method, reason in found.items():
        barred.bar(method, reason)
    return found


def _parts(row: Row) -> set[str]:
    return {row.candidate.weights, *row.candidate.methods}
