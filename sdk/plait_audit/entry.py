"""A decoded log on its way into the state, and how a rule says that it does not fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from plait.protocol.ids import Address, to_hex
from plait_audit.state import Account, Finding, Place, State


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A decoded log and the time of its block in Unix seconds."""

    contract: str
    name: str
    values: Mapping[str, Any]
    place: Place
    time: int


Rule = Callable[[State, Entry], None]


def find(state: State, check: str, entry: Entry, text: str) -> None:
    """Add a finding that points to the log."""
    state.findings.append(Finding(check=check, text=text, place=entry.place))


def expect(state: State, check: str, entry: Entry, what: str, *, logged: object, rebuilt: object) -> None:
    """Find a value of the event that differs from what replay gives."""
    if logged != rebuilt:
        find(state, check, entry, f"{what}: the event says {_shown(logged)}, replay gives {_shown(rebuilt)}")


def account_of(state: State, payee: Address, entry: Entry) -> Account:
    """Return a payee's account, touched by this log."""
    account = state.accounts.setdefault(payee, Account(place=entry.place))
    account.place = entry.place
    return account


def nothing(state: State, entry: Entry) -> None:
    """Events that report and change nothing."""
    del state, entry


def _shown(value: object) -> str:
    return to_hex(value) if isinstance(value, bytes) else str(value)
