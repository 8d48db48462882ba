"""One deployment of the shipped bytecode, and people who can sign."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from brownie import Contract, accounts, chain, web3
from eth_account import Account
from eth_account.messages import encode_typed_data
from web3 import Web3

ABI = Path(__file__).resolve().parents[2] / "sdk" / "plait" / "protocol" / "abi"
FEE_BPS = 100
EPOCH_S = 600
EXIT_DELAY_S = 700
MIN_STAKE = 100_000_000
ZERO = "0x" + "00" * 20

VOUCHER = [
    {"name": "payer", "type": "address"},
    {"name": "payee", "type": "address"},
    {"name": "cumulative", "type": "uint96"},
    {"name": "jobs", "type": "uint32"},
    {"name": "receiptsRoot", "type": "bytes32"},
]
SERVICE_KEY = [{"name": "owner", "type": "address"}, {"name": "key", "type": "address"}]


@dataclass(frozen=True)
class World:
    """The contracts, and what signs for whom."""

    token: Any
    nodes: Any
    channels: Any
    payer: Any
    payee: Any
    signer: Any
    node_key: Any

    def sign(self, key: Any, name: str, fields: list[dict[str, str]], message: dict[str, Any]) -> tuple[bytes, bytes]:
        """Return r and vs (EIP-2098) of a message under plait's domain."""
        domain = {
            "name": "plait",
            "version": "1",
            "chainId": chain.id,
            "verifyingContract": self.channels.address,
        }
        signed = key.sign_message(encode_typed_data(domain, {name: fields}, message))
        vs = signed.s | ((signed.v - 27) << 255)
        return signed.r.to_bytes(32, "big"), vs.to_bytes(32, "big")

    def row(self, cumulative: int, jobs: int = 1, key: Any = None) -> bytes:
        """Return a claim row with the payer's voucher."""
        root = Web3.keccak(text=f"receipts {jobs}")
        message = {
            "payer": self.payer.address,
            "payee": self.payee.address,
            "cumulative": cumulative,
            "jobs": jobs,
            "receiptsRoot": root,
        }
        r, vs = self.sign(key or self.signer, "Voucher", VOUCHER, message)
        payer = bytes.fromhex(self.payer.address[2:])
        return payer + cumulative.to_bytes(12, "big") + jobs.to_bytes(4, "big") + root + r + vs

    def slot(self) -> tuple[int, int, int, int]:
        """Return deposit, claimed, exitAt and jobs of the payer's channel."""
        channel = self.channels.channelId(self.payer, self.payee, self.signer.address)
        return tuple(self.channels.channel(channel))


def shipped(name: str) -> dict[str, Any]:
    return json.loads((ABI / f"{name}.json").read_text("utf-8"))


def deploy(name: str, *arguments: Any) -> Any:
    code = shipped(name)
    factory = web3.eth.contract(abi=code["abi"], bytecode=code["bytecode"])
    transaction = accounts[0].transfer(data=factory.constructor(*arguments).data_in_transaction, silent=True)
    return Contract.from_abi(name, transaction.contract_address, code["abi"])


def address_at(nonce: int) -> str:
    """Return where the deployer's transaction with this nonce puts its contract."""
    return accounts[0].get_deployment_address(nonce)


@pytest.fixture(scope="module")
def deployed() -> World:
    first = accounts[0].nonce
    token = deploy("TestToken")
    nodes = deploy("NodeRegistry", token.address, address_at(first + 2), ZERO, MIN_STAKE, 1200)
    channels = deploy(
        "Channels", token.address, nodes.address, address_at(first + 3), ZERO, EPOCH_S, EXIT_DELAY_S, FEE_BPS
    )
    deploy("Requests", channels.address)
    world = World(
        token=token,
        nodes=nodes,
        channels=channels,
        payer=accounts[1],
        payee=accounts[2],
        signer=Account.create(),
        node_key=Account.create(),
    )
    for who in (world.payer, world.payee):
        token.mint(who, 10**12, {"from": who})
        token.approve(channels, 2**256 - 1, {"from": who})
        token.approve(nodes, 2**256 - 1, {"from": who})
    join(world)
    return world


def join(world: World) -> None:
    world.nodes.register(1, "http://127.0.0.1:1", b"\x01" * 32, {"from": world.payee})
    message = {"owner": world.payee.address, "key": world.node_key.address}
    r, vs = world.sign(world.node_key, "ServiceKey", SERVICE_KEY, message)
    world.nodes.addServiceKey(world.node_key.address, r, vs, {"from": world.payee})
    world.nodes.stake(MIN_STAKE, {"from": world.payee})


@pytest.fixture
def world(deployed: World, fn_isolation: None) -> World:
    return deployed
