"""Whom an operator serves: lists of addresses that are refused, or the only ones allowed."""

from __future__ import annotations

from dataclasses import dataclass

from plait.protocol.errors import RefusedError
from plait.protocol.ids import Address, to_hex


class NotServedError(RefusedError):
    """This node's operator does not serve this payer or worker; ask another node."""

    code = "not_served"


@dataclass(frozen=True, slots=True, kw_only=True)
class Guests:
    """Who may come: nobody who is `refused`, and where `allowed` names somebody, only those it names."""

    refused: frozenset[Address] = frozenset()
    allowed: frozenset[Address] = frozenset()

    def check(self, who: Address, role: str) -> None:
        """Let a payer or worker in; raise `NotServedError`."""
        if who in self.refused or (self.allowed and who not in self.allowed):
            raise NotServedError(f"this node does not serve {role} {to_hex(who)}; ask another one")


EVERYBODY = Guests()
