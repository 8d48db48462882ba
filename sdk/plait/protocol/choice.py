"""The method a job is run by: hashed into the job record, explained in the note that closes the answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

import rfc8785

from plait.protocol.errors import SealingError
from plait.protocol.ids import Hash, keccak
from plait.protocol.sealing import Note

_PLAIN: Final = "plain"


def method_word(methods: Iterable[str]) -> str:
    """Return the one word for a job's methods: joined by "+", or "plain" for none."""
    return "+".join(methods) or _PLAIN


def choice_hash(method: str, amounts: Mapping[str, int]) -> Hash:
    """Return `Job.choice`: the hash of canonical JSON of method and amounts."""
    return keccak(rfc8785.dumps({"amounts": dict(amounts), "method": method}))


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceNote:
    """Method, amounts, what the selector predicted (seconds, tokens/s ...) and why it chose so."""

    method: str
    amounts: Mapping[str, int] = field(hash=False)
    predicted: Mapping[str, float] = field(hash=False)
    reason: str

    @property
    def choice(self) -> Hash:
        """Return the hash that the job record must carry."""
        return choice_hash(self.method, self.amounts)

    @property
    def methods(self) -> tuple[str, ...]:
        """Return the methods that the one word names, none for "plain"."""
        return () if self.method == _PLAIN else tuple(self.method.split("+"))

    def to_json(self) -> bytes:
        """Return canonical JSON, as it is sealed."""
        value: dict[str, Any] = {
            "amounts": dict(self.amounts),
            "method": self.method,
            "predicted": dict(self.predicted),
            "reason": self.reason,
        }
        return rfc8785.dumps(value)

    @classmethod
    def from_note(cls, note: Note) -> ChoiceNote:
        """Read an opened note; raise `SealingError` when it is no choice."""
        value = note.value()
        method, reason = value.get("method"), value.get("reason")
        if set(value) != {"amounts", "method", "predicted", "reason"}:
            raise SealingError("the note holds amounts, method, predicted and reason, nothing else")
        if not isinstance(method, str) or not isinstance(reason, str) or max(len(method), len(reason)) > 2_000:
            raise SealingError("the note's method and reason are short strings")
        amounts = _numbers(value["amounts"], whole=True)
        predicted = _numbers(value["predicted"], whole=False)
        made = cls(method=method, amounts=cast("dict[str, int]", amounts), predicted=predicted, reason=reason)
        try:
            made.to_json()
        except ValueError as error:
            raise SealingError("the note holds a text or a number that canonical JSON has no form for") from error
        return made


def _numbers(value: object, *, whole: bool) -> dict[str, float]:
    found = cast("dict[str, object]", value) if isinstance(value, dict) else None
    kinds = (int,) if whole else (int, float)
    if found is None or len(found) > 64 or not all(type(item) in kinds for item in found.values()):
        raise SealingError("the note's amounts are whole numbers, its predictions numbers")
    return cast("dict[str, float]", found)
