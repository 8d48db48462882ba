"""What a method of acceleration is, what decides whether it can be used, and what proposes tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from plait_node.engine.lane import WeightType

__all__ = ["STRICT", "Amount", "Facts", "Method", "Proposer", "Scope"]

Scope = Literal["job", "lane", "profile"]  # who chooses: the worker per job, the stage per lane, the payer by profile

STRICT = "fp32-strict"  # the profile that promises the tokens of an undisturbed fp32 run


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """How much of a method: a whole number of `unit` from `least` to `most`."""

    unit: str
    least: int
    most: int
    default: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known about a lane where methods are chosen."""

    device: str = "cpu"
    compiler: str | None = None  # path of a C++ compiler
    weights: WeightType | None = None  # what a running lane holds; None where the lane is still to be started
    fused: frozenset[WeightType] = frozenset()  # packed types that this device multiplies without unpacking them first
    whole_model: bool = False  # every block runs in this process
    batch: int = 256  # decode rows that one pass takes at most
    profile: str = STRICT
    draft_model: bool = False  # a small model with the same vocabulary is loaded


class Method(ABC):
    """One way to be faster, by name."""

    name: ClassVar[str]
    title: ClassVar[str]
    scope: ClassVar[Scope]
    amount: ClassVar[Amount | None] = None  # None: it is on or off, and on is 1

    @abstractmethod
    def refusal(self, amount: int, facts: Facts, chosen: Mapping[str, int]) -> str | None:
        """Return why it cannot be used here, together with all that is chosen, or None; `amount` is in range."""


class Proposer(Protocol):
    """Guesses how one job's text goes on; a guess costs time, never a token."""

    def propose(self, ids: Sequence[int], depth: int) -> list[int]:
        """Return at most `depth` tokens that may follow `ids`, prompt and answer so far; `ids` only ever grows."""
        ...

    def accepted(self, proposed: int, accepted: int) -> None:
        """Learn how many of the last proposal's first `proposed` tokens were right."""
        ...
