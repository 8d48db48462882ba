"""The guard: asked before every signature over work, it never allows two that contradict each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar

from plait.ledger.errors import ConflictError
from plait.ledger.journal import Journal
from plait.protocol.ids import Hash
from plait.protocol.messages import Job, Leaf, Progress, Receipt
from plait.protocol.typed import Domain, Key, Signed, digest

W = TypeVar("W", Job, Leaf, Progress, Receipt)


@dataclass(frozen=True, slots=True, kw_only=True)
class Safe:
    """The signature may be made; `same` when it was made before."""

    same: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NotSafe:
    """Another message was signed for the same place: signing this one would be evidence against us."""

    kind: Literal["Job", "Leaf", "Progress", "Receipt"]
    signed: Hash
    asked: Hash


class SigningGuard:
    """Remembers, on disk, what was signed for each place: one Job an attempt, one Leaf a window, and so on."""

    def __init__(self, journal: Journal, domain: Domain) -> None:
        self._journal = journal
        self._domain = domain

    def check(self, message: Job | Leaf | Progress | Receipt) -> Safe | NotSafe:
        """Say whether a message may be signed, and remember that it is, before it is."""
        kind, slot = _slot(message)
        asked = digest(self._domain, message)
        with self._journal.write():
            row = self._journal.one("SELECT digest FROM signatures WHERE kind = ? AND slot = ?", kind, slot)
            if row is None:
                self._journal.run("INSERT INTO signatures VALUES (?, ?, ?)", kind, slot, asked)
                return Safe(same=False)
        return Safe(same=True) if row[0] == asked else NotSafe(kind=kind, signed=Hash(row[0]), asked=asked)

    def permit(self, message: Job | Leaf | Progress | Receipt) -> None:
        """As `check`, but raise `ConflictError` when the message may not be signed."""
        verdict = self.check(message)
        if isinstance(verdict, NotSafe):
            raise ConflictError(verdict.kind, signed=verdict.signed, asked=verdict.asked)

    def sign(self, key: Key, message: W) -> Signed[W]:
        """Sign a message; raise `ConflictError` when it contradicts an earlier one."""
        self.permit(message)
        return key.signed(self._domain, message)


def _slot(message: Job | Leaf | Progress | Receipt) -> tuple[Literal["Job", "Leaf", "Progress", "Receipt"], bytes]:
    match message:
        case Job():
            return "Job", message.request + message.attempt.to_bytes(4, "big")
        case Leaf():
            return "Leaf", message.job + message.stage.to_bytes(2, "big") + message.window.to_bytes(4, "big")
        case Progress():
            return "Progress", message.job + message.to.to_bytes(4, "big")
        case Receipt():
            return "Receipt", message.request
