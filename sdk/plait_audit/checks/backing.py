"""Compare the tokens that each contract holds with what its books owe."""

from __future__ import annotations

from collections.abc import AsyncIterator

from plait.chain.reader import ChainReader
from plait_audit.load import Replay
from plait_audit.state import Finding, State


def owed(state: State) -> dict[str, int]:
    """Return what each contract owes by the replayed books, in base units."""
    deposits = sum(channel.deposit - channel.claimed for channel in state.channels.values())
    accounts = sum(account.held for account in state.accounts.values())
    stakes = sum(node.stake + node.unbonding for node in state.nodes.values())
    fees = sum(request.fee for request in state.requests.values() if request.status == "open")
    return {"Channels": deposits + accounts, "NodeRegistry": stakes, "Requests": fees}


async def tokens_back_what_is_owed(reader: ChainReader, replay: Replay) -> AsyncIterator[Finding]:
    """Find contracts that hold less than they owe, and balances that differ from the token's own transfers.

    A surplus is no finding: anybody may send tokens to a contract.
    """
    for contract, amount in owed(replay.state).items():
        at = reader.deployment.address(contract)
        (held,) = await reader.view("Token", "balanceOf", at, where=replay.block.number)
        if held < amount:
            yield Finding(check="tokens-back-debts", text=f"{contract} owes {amount} base units and holds {held}")
        moved = replay.state.balances.get(at, 0)
        if held != moved:
            yield Finding(check="token", text=f"{contract} holds {held} base units, its transfers add up to {moved}")
