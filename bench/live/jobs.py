"""Which jobs are asked: as many of each kind of task, in an order that a seed decides."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from plait_node.selector.tasks import KINDS, asks

__all__ = ["Job", "mixed_jobs", "orders"]

SHORTEST, LONGEST = 32, 64  # tokens of an answer, at most
_TALK: Final = 4  # questions about one text, one after the other: a prefix is of use while it is remembered
_SHARED: Final = "shared-context"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One question; `warm`: an earlier one was about the same text."""

    number: int
    kind: str
    text: str
    max_tokens: int
    warm: bool


def mixed_jobs(count: int, *, seed: int) -> list[Job]:
    """Return `count` jobs (6 to 1,500) over all kinds; questions about one text follow each other, all else is mixed.

    Raises:
        ValueError: `count` is out of range.
    """
    if not len(KINDS) <= count <= 1_500:
        raise ValueError(f"6 to 1,500 jobs, not {count}: every kind of task is asked")
    draw = random.Random(f"live {seed}")  # noqa: S311 -- an order to measure in is no secret
    talks: list[list[tuple[str, str]]] = []
    for place, kind in enumerate(KINDS):
        share = count // len(KINDS) + (place < count % len(KINDS))
        size = _TALK if kind == _SHARED else 1
        texts = _texts(kind, share, seed)
        talks += [[(kind, text) for text in texts[at : at + size]] for at in range(0, share, size)]
    draw.shuffle(talks)
    flat = [(kind, text, place > 0) for talk in talks for place, (kind, text) in enumerate(talk)]
    return [
        Job(number=number, kind=kind, text=text, max_tokens=draw.randint(SHORTEST, LONGEST), warm=warm)
        for number, (kind, text, warm) in enumerate(flat)
    ]


def orders(jobs: Sequence[Job], ways: Sequence[str], *, seed: int) -> list[list[str]]:
    """Return for each job the order in which it is run each way."""
    draw = random.Random(f"order {seed}")  # noqa: S311 -- as above
    return [draw.sample(list(ways), len(ways)) for _ in jobs]


def _texts(kind: str, count: int, seed: int) -> list[str]:
    """Return prompts; for a shared context, runs of `_TALK` about one text each."""
    if kind != _SHARED:
        return [f"{each.shared}{each.own}" for each in asks(kind, count=count, seed=seed)]
    found: list[str] = []
    for talk in range(-(-count // _TALK)):
        found += [f"{each.shared}{each.own}" for each in asks(kind, count=_TALK, seed=1_000 * seed + talk)]
    return found[:count]
