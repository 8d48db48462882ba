"""Deploy all contracts from the bytecode that ships: no compiler, no script."""

from __future__ import annotations

from plait.chain.abi import CONTRACTS, artifact
from plait.chain.deployments import Deployment, Parameters, Placed
from plait.chain.errors import DeploymentError
from plait.chain.lane import Lane, Patience
from plait.chain.rpc import Rpc
from plait.chain.values import Receipt
from plait.protocol.ids import Address, keccak, to_hex
from plait.protocol.typed import Key


async def deploy(
    rpc_url: str, key: Key, parameters: Parameters | None = None, *, patience: Patience | None = None
) -> Deployment:
    """Deploy a test token and all contracts with the key's money, and return where they are.

    Contracts that name each other get addresses predicted from deployer and nonce. Run nothing else with this key
    meanwhile: raise `DeploymentError` when a contract lands elsewhere than predicted.
    """
    chosen = parameters or Parameters()
    async with Rpc(rpc_url) as rpc:
        chain_id = await rpc.chain_id()
        lane = Lane(rpc, key, chain_id, patience=patience)
        nonce = await rpc.nonce(key.address, "pending")
        at = {name: contract_address(key.address, nonce + place) for place, name in enumerate(CONTRACTS)}
        receipts: list[Receipt] = []
        for name, arguments in _constructors(at, chosen).items():
            receipt = await lane.send(None, artifact(name).deployment(*arguments))
            if receipt.contract != at[name]:
                raise DeploymentError(
                    f"{name} landed at {to_hex(receipt.contract or b'')} instead of {to_hex(at[name])}: "
                    "the deployer's key sent something else meanwhile; deploy again with a key of its own"
                )
            receipts.append(receipt)
        placed = {name: Placed(address=each, code_hash=keccak(await rpc.code(each))) for name, each in at.items()}
    return Deployment(
        chain_id=chain_id,
        block=receipts[0].block,
        block_hash=receipts[0].block_hash,
        deployer=key.address,
        contracts=placed,
        parameters=chosen,
    )


def contract_address(deployer: Address, nonce: int) -> Address:
    """Return where a deployer's transaction with this nonce puts a contract."""
    digits = nonce.to_bytes((nonce.bit_length() + 7) // 8, "big")
    number = digits if 0 < nonce < 0x80 else bytes([0x80 + len(digits)]) + digits
    body = bytes([0x80 + len(deployer)]) + deployer + number
    return Address(keccak(bytes([0xC0 + len(body)]), body)[12:])  # RLP of [deployer, nonce]


def _constructors(at: dict[str, Address], chosen: Parameters) -> dict[str, tuple[object, ...]]:
    token, nodes, channels, requests = at["TestToken"], at["NodeRegistry"], at["Channels"], at["Requests"]
    return {
        "TestToken": (),
        "ModelRegistry": (),
        "NodeRegistry": (token, channels, chosen.arbiter, chosen.min_stake, chosen.unbonding_delay),
        "Channels": (token, nodes, requests, chosen.arbiter, chosen.epoch_length, chosen.exit_delay, chosen.fee_bps),
        "Requests": (channels,),
        "Reputation": (channels, chosen.tier_unit),
    }
