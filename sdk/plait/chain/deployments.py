"""What was deployed where: one JSON file per deployment, checked against the chain before it is used."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from plait.chain.abi import CONTRACTS
from plait.chain.errors import DeploymentError, DeploymentFileError, ReorgError, WrongChainError, WrongCodeError
from plait.chain.rpc import Rpc
from plait.chain.values import AddressData, HashData
from plait.protocol.ids import ADDRESS_ZERO, Address, Hash, keccak, to_hex
from plait.protocol.typed import Domain

_AsHex = PlainSerializer(to_hex)
AddressText = Annotated[AddressData, _AsHex]
HashText = Annotated[HashData, _AsHex]
_Amount = Annotated[int, Field(gt=0, lt=1 << 96), PlainSerializer(str)]  # above 2^53 JSON readers lose digits


class Part(BaseModel):
    """A part of a file that plait writes: nothing unknown in it, names in camel case."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, validate_by_name=True)


class Placed(Part):
    """Where one contract is, and the hash of the code there."""

    address: AddressText
    code_hash: HashText


class Parameters(Part):
    """What a deployment fixes for ever: amounts in base units, times in seconds. The defaults are the usual ones.

    The bounds are those of the contracts' constructors. `erc8004_feedback` is ERC-8004's reputation registry, to which
    an `AgentExport` is deployed; zero for none.
    """

    arbiter: AddressText = ADDRESS_ZERO  # nobody may jail, slash or forfeit
    min_stake: _Amount = 100_000_000
    unbonding_delay: int = Field(default=7 * 86_400, gt=0, le=365 * 86_400)
    epoch_length: int = Field(default=6 * 3_600, gt=0)
    exit_delay: int = Field(default=86_400, gt=0, le=2_592_000)
    fee_bps: int = Field(default=100, ge=0, le=1_000)
    tier_unit: _Amount = 1_000_000
    erc8004_feedback: AddressText = ADDRESS_ZERO

    @model_validator(mode="after")
    def _claims_settle_before_stake_leaves(self) -> Self:
        if self.unbonding_delay < 2 * self.epoch_length:  # money is pending for up to two epochs
            raise ValueError(
                f"unbondingDelay ({self.unbonding_delay}) is at least twice epochLength ({self.epoch_length})"
            )
        return self


LOCAL = Parameters(unbonding_delay=1_200, epoch_length=600, exit_delay=600, tier_unit=1_000)


class Deployment(Part):
    """One set of contracts on one chain.

    `block` is the first block of the deployment: replay starts there, and its hash tells a restarted local chain from
    the one that was deployed to.
    """

    chain_id: int = Field(gt=0)
    block: int = Field(ge=0)
    block_hash: HashText
    deployer: AddressText
    contracts: dict[str, Placed]
    parameters: Parameters

    @classmethod
    def load(cls, path: Path | str) -> Deployment:
        """Read a deployment file; raise `DeploymentFileError`."""
        path = Path(path)
        try:
            found = cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise DeploymentFileError(path, error.strerror or str(error)) from error
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise DeploymentFileError(path, f"{where}: {first['msg']}") from error
        missing = [name for name in CONTRACTS if name not in found.contracts]
        if missing:
            raise DeploymentFileError(path, f"it lacks {', '.join(missing)}")
        return found

    def save(self, path: Path | str) -> None:
        """Write the deployment file, whole or not at all."""
        write_whole(Path(path), self)

    @property
    def addresses(self) -> dict[str, Address]:
        """Return where each contract is."""
        return {name: placed.address for name, placed in self.contracts.items()}

    @property
    def domain(self) -> Domain:
        """Return the EIP-712 domain of everything signed under this deployment."""
        return Domain(chain_id=self.chain_id, channels=self.address("Channels"))

    @property
    def identity(self) -> Hash:
        """Return a hash that no other deployment has, not even the same one on a restarted local chain."""
        return keccak(self.chain_id.to_bytes(32, "big"), self.block_hash, self.address("Channels"))

    def address(self, contract: str) -> Address:
        """Return where a contract is."""
        return self.contracts[contract].address

    def contract_at(self, address: Address) -> str | None:
        """Return which contract is at an address."""
        return next((name for name, at in self.contracts.items() if at.address == address), None)

    async def check(self, rpc: Rpc) -> None:
        """Raise unless the endpoint serves this chain and every address holds the code that was deployed."""
        found = await rpc.chain_id()
        if found != self.chain_id:
            raise WrongChainError(rpc.url, expected=self.chain_id, found=found)
        try:
            async with asyncio.TaskGroup() as group:
                codes = {name: group.create_task(rpc.code(at.address)) for name, at in self.contracts.items()}
                block = group.create_task(rpc.block(self.block))
        except BaseExceptionGroup as errors:  # parallel calls fail for the same reason
            raise errors.exceptions[0] from errors
        for name, task in codes.items():
            code = task.result()
            if keccak(code) != self.contracts[name].code_hash:
                raise WrongCodeError(name, self.address(name), empty=not code)
        head = block.result()
        if head is None or head.hash != self.block_hash:
            raise ReorgError(self.block, expected=self.block_hash, found=head.hash if head else None)


def write_whole(path: Path, content: Part) -> None:
    """Write a file, whole or not at all; raise `DeploymentError` when it cannot be written."""
    new = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(content.model_dump_json(by_alias=True, indent=2) + "\n", "utf-8")
        new.replace(path)
    except OSError as error:
        raise DeploymentError(f"{path} cannot be written ({error.strerror or error}); name another file") from error
