"""What was deployed where: one JSON file per deployment, checked against the chain before it is used."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, ValidationError
from pydantic.alias_generators import to_camel

from plait.chain.abi import CONTRACTS
from plait.chain.errors import DeploymentFileError, ReorgError, WrongChainError, WrongCodeError
from plait.chain.rpc import Rpc
from plait.chain.values import AddressData, HashData
from plait.protocol.ids import ADDRESS_ZERO, Address, Hash, keccak, to_hex
from plait.protocol.typed import Domain

_AsHex = PlainSerializer(to_hex)
_AddressText = Annotated[AddressData, _AsHex]
_HashText = Annotated[HashData, _AsHex]
_Decimal = Annotated[int, Field(ge=0, lt=1 << 96), PlainSerializer(str)]  # above 2^53 JSON readers lose digits


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, validate_by_name=True)


class Placed(_Part):
    """Where one contract is, and the hash of the code there."""

    address: _AddressText
    code_hash: _HashText


class Parameters(_Part):
    """What a deployment fixes for ever: amounts in base units, times in seconds. The defaults are the usual ones."""

    arbiter: _AddressText = ADDRESS_ZERO  # nobody may jail, slash or forfeit
    min_stake: _Decimal = 100_000_000
    unbonding_delay: int = Field(default=7 * 86_400, gt=0)
    epoch_length: int = Field(default=6 * 3_600, gt=0)
    exit_delay: int = Field(default=86_400, gt=0, le=2_592_000)
    fee_bps: int = Field(default=100, ge=0, le=1_000)
    tier_unit: _Decimal = 1_000_000


LOCAL = Parameters(unbonding_delay=1_200, epoch_length=600, exit_delay=600, tier_unit=1_000)


class Deployment(_Part):
    """One set of contracts on one chain.

    `block` is the first block of the deployment: replay starts there, and its hash tells a restarted local chain from
    the one that was deployed to.
    """

    chain_id: int = Field(gt=0)
    block: int = Field(ge=0)
    block_hash: _HashText
    deployer: _AddressText
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
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(path.name + ".new")
        draft.write_text(self.model_dump_json(by_alias=True, indent=2) + "\n", "utf-8")
        draft.replace(path)

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
        async with asyncio.TaskGroup() as group:
            codes = {name: group.create_task(rpc.code(at.address)) for name, at in self.contracts.items()}
            block = group.create_task(rpc.block(self.block))
        for name, task in codes.items():
            code = task.result()
            if keccak(code) != self.contracts[name].code_hash:
                raise WrongCodeError(name, self.address(name), empty=not code)
        head = block.result()
        if head is None or head.hash != self.block_hash:
            raise ReorgError(self.block, expected=self.block_hash, found=head.hash if head else None)
