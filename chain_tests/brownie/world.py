"""The contracts of one deployment and the people of these tests."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import brownie
from brownie import Contract, accounts, web3
from brownie.network.state import _add_contract
from clock import EPOCH_S
from signing import Row, compact, encoded, key_of
from web3 import Web3

ABI = Path(__file__).resolve().parents[2] / "sdk" / "plait" / "protocol" / "abi"
FEE_BPS = 100
EXIT_DELAY_S = 700
UNBONDING_S = 1200
MIN_STAKE = 100_000_000
RICH = 10**12
TIER_UNIT = 1_000
GATEWAY = 1
BURN = "0x000000000000000000000000000000000000dEaD"


@dataclass(frozen=True)
class World:
    """The contracts, and who signs for whom. One payee is a node, the other account may become one."""

    token: Any
    nodes: Any
    channels: Any
    reputation: Any
    payer: Any = field(default_factory=lambda: accounts[1])
    payee: Any = field(default_factory=lambda: accounts[2])
    other_payer: Any = field(default_factory=lambda: accounts[3])
    other_payee: Any = field(default_factory=lambda: accounts[4])
    stranger: Any = field(default_factory=lambda: accounts[5])
    arbiter: Any = field(default_factory=lambda: accounts[9])
    signer: Any = field(default_factory=lambda: key_of("session"))
    other_signer: Any = field(default_factory=lambda: key_of("other session"))
    node_key: Any = field(default_factory=lambda: key_of("node"))
    other_node_key: Any = field(default_factory=lambda: key_of("other node"))

    def fund(self, who: Any) -> None:
        self.token.mint(who, RICH, {"from": who})
        for spender in (self.channels, self.nodes):
            self.token.approve(spender, 2**256 - 1, {"from": who})

    def join(self, owner: Any, key: Any, stake: int = MIN_STAKE) -> None:
        self.nodes.register(GATEWAY, "http://127.0.0.1:1", b"\x01" * 32, {"from": owner})
        self.nodes.addServiceKey(key.address, *self.key_proof(key, owner), {"from": owner})
        self.nodes.stake(stake, {"from": owner})

    def open(self, amount: int, payer: Any = None, payee: Any = None, signer: Any = None) -> Any:
        key = (signer or self.signer).address
        return self.channels.open(payee or self.payee, key, amount, {"from": payer or self.payer})

    def row(self, cumulative: int, jobs: int = 1, key: Any = None, payer: Any = None, payee: Any = None) -> Row:
        """Return a claim row with a payer's voucher."""
        root = bytes(Web3.keccak(text=f"receipts {jobs}"))
        message = {
            "payer": (payer or self.payer).address,
            "payee": (payee or self.payee).address,
            "cumulative": cumulative,
            "jobs": jobs,
            "receiptsRoot": root,
        }
        r, vs = self.sign(key or self.signer, "Voucher", message)
        return Row(message["payer"], cumulative, jobs, root, r, vs)

    def claim(self, *rows: Row, payee: Any = None, sender: Any = None) -> Any:
        owner = payee or self.payee
        return self.channels.claim(owner, b"".join(map(bytes, rows)), {"from": sender or owner})

    def consent(
        self, key: Any, claimed: int, exit_at: int, *, payer: Any = None, payee: Any = None, signer: Any = None
    ) -> tuple[Any, ...]:
        """Return the arguments of `close`, with the payee's agreement to end a channel in this state."""
        parties = (payer or self.payer, payee or self.payee, signer or self.signer)
        who = tuple(party.address for party in parties)
        message = dict(zip(("payer", "payee", "signer"), who, strict=True))
        return (*who, *self.sign(key, "Close", {**message, "claimed": claimed, "exitAt": exit_at}))

    def key_proof(self, key: Any, owner: Any) -> tuple[bytes, bytes]:
        return self.sign(key, "ServiceKey", {"owner": owner.address, "key": key.address})

    def sign(self, key: Any, name: str, message: dict[str, Any]) -> tuple[bytes, bytes]:
        return compact(key.sign_message(encoded(self.channels.address, name, message)))

    def slot(self, payer: Any = None, payee: Any = None, signer: Any = None) -> tuple[int, int, int, int]:
        """Return deposit, claimed, exitAt and jobs of a channel."""
        key = (signer or self.signer).address
        channel = self.channels.channelId(payer or self.payer, payee or self.payee, key)
        return tuple(self.channels.channel(channel))


def refused(error: str) -> AbstractContextManager[Any]:
    """Expect this typed error; used around `.call`, so that the gas profile shows what succeeded."""
    return brownie.reverts(revert_pattern=f"{error}:.*")


def fee_rounded_up(amount: int) -> int:
    return -(-amount * FEE_BPS // 10_000)


def deployment() -> World:
    """Deploy as contracts/README.md has it, as far as money flows, and give everybody tokens."""
    arbiter = accounts[9].address
    first = accounts[0].nonce
    channels_at, requests_at = (accounts[0].get_deployment_address(first + ahead) for ahead in (2, 3))
    token = _deploy("TestToken")
    nodes = _deploy("NodeRegistry", token.address, channels_at, arbiter, MIN_STAKE, UNBONDING_S)
    terms = (EPOCH_S, EXIT_DELAY_S, FEE_BPS)
    channels = _deploy("Channels", token.address, nodes.address, requests_at, arbiter, *terms)
    _deploy("Requests", channels.address)
    reputation = _deploy("Reputation", channels.address, TIER_UNIT)
    world = World(token=token, nodes=nodes, channels=channels, reputation=reputation)
    for who in accounts[1:6]:
        world.fund(who)
    return world


def _deploy(name: str, *arguments: Any) -> Any:
    code = json.loads((ABI / f"{name}.json").read_text("utf-8"))
    factory = web3.eth.contract(abi=code["abi"], bytecode=code["bytecode"])
    transaction = accounts[0].transfer(data=factory.constructor(*arguments).data_in_transaction, silent=True)
    return _named(Contract.from_abi(name, transaction.contract_address, code["abi"]))


def _named(contract: Any) -> Any:
    """Make brownie name the contract's transactions, as it does only for what it compiled itself.

    A transaction without a name has no return value and no place in the gas profile.
    """
    contract._build["language"] = "Solidity"
    _add_contract(contract)
    return contract
