"""What a deployment will place where: decided before anything is sent, from deployer and nonce alone."""

from __future__ import annotations

from dataclasses import dataclass

from plait.chain.abi import artifact
from plait.chain.deployments import Parameters
from plait.protocol.ids import ADDRESS_ZERO, Address, keccak

_PLACED = ("ModelRegistry", "NodeRegistry", "Channels", "Requests", "Reputation")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalToken:
    """A token that is on the chain already; `proxy` when its code may be exchanged behind its address."""

    address: Address
    decimals: int
    proxy: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One transaction that places one contract; `arguments` are its constructor's, by name."""

    contract: str
    nonce: int
    address: Address
    arguments: dict[str, object]

    @property
    def code(self) -> bytes:
        """Return the code that places the contract: the transaction's data."""
        return artifact(self.contract).deployment(*self.arguments.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All transactions of a deployment, in order; `token` is None where a test token is deployed too."""

    chain_id: int
    deployer: Address
    nonce: int
    token: ExternalToken | None
    parameters: Parameters
    steps: tuple[Step, ...]

    @property
    def addresses(self) -> dict[str, Address]:
        """Return where each contract is, or will be."""
        token = {"Token": self.token.address} if self.token else {}
        return token | {step.contract: step.address for step in self.steps}


def plan_of(
    *, chain_id: int, deployer: Address, nonce: int, parameters: Parameters, token: ExternalToken | None = None
) -> Plan:
    """Return the transactions of a deployment whose first one has this nonce."""
    names = (*(() if token else ("Token",)), *_PLACED)
    if parameters.erc8004_feedback != ADDRESS_ZERO:
        names += ("AgentExport",)
    at = {name: contract_address(deployer, nonce + place) for place, name in enumerate(names)}
    arguments = _constructors(at | ({"Token": token.address} if token else {}), parameters)
    steps = tuple(
        Step(contract=name, nonce=nonce + place, address=at[name], arguments=_named(name, arguments[name]))
        for place, name in enumerate(names)
    )
    return Plan(chain_id=chain_id, deployer=deployer, nonce=nonce, token=token, parameters=parameters, steps=steps)


def contract_address(deployer: Address, nonce: int) -> Address:
    """Return where a deployer's transaction with this nonce puts a contract."""
    digits = nonce.to_bytes((nonce.bit_length() + 7) // 8, "big")
    number = digits if 0 < nonce < 0x80 else bytes([0x80 + len(digits)]) + digits
    body = bytes([0x80 + len(deployer)]) + deployer + number
    return Address(keccak(bytes([0xC0 + len(body)]), body)[12:])  # RLP of [deployer, nonce]


def _constructors(at: dict[str, Address], chosen: Parameters) -> dict[str, tuple[object, ...]]:
    token, nodes, channels, requests = at["Token"], at["NodeRegistry"], at["Channels"], at["Requests"]
    return {
        "Token": (),
        "ModelRegistry": (),
        "NodeRegistry": (token, channels, chosen.arbiter, chosen.min_stake, chosen.unbonding_delay),
        "Channels": (token, nodes, requests, chosen.arbiter, chosen.epoch_length, chosen.exit_delay, chosen.fee_bps),
        "Requests": (channels,),
        "Reputation": (channels, chosen.tier_unit),
        "AgentExport": (at["Reputation"], chosen.erc8004_feedback),
    }


def _named(contract: str, values: tuple[object, ...]) -> dict[str, object]:
    names = (each.name.rstrip("_") for each in artifact(contract).constructor)
    return dict(zip(names, values, strict=True))
