"""What a JSON-RPC endpoint answers, checked: blocks, logs, receipts."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from plait.protocol.ids import Address, Hash


def _quantity(value: object) -> int:
    if not isinstance(value, str) or not value.startswith("0x") or len(value) > 66:
        raise ValueError("a quantity is 0x and hex digits")
    return int(value, 16)


def _data(value: object) -> bytes:
    if isinstance(value, bytes):  # from our own code; no JSON holds bytes
        return value
    if not isinstance(value, str) or not value.startswith("0x"):
        raise ValueError("data is 0x and hex digits")
    return bytes.fromhex(value[2:])


def _sized(size: int) -> BeforeValidator:
    def check(value: object) -> bytes:
        data = _data(value)
        if len(data) != size:
            raise ValueError(f"expected {size} bytes, not {len(data)}")
        return data

    return BeforeValidator(check)


Quantity = Annotated[int, BeforeValidator(_quantity)]
Data = Annotated[bytes, BeforeValidator(_data)]
HashData = Annotated[Hash, _sized(32)]
AddressData = Annotated[Address, _sized(20)]


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=False)


class Block(_Answer):
    """A block's head; times in Unix seconds, fees in wei per gas."""

    number: Quantity
    hash: HashData
    parent: HashData = Field(alias="parentHash")
    timestamp: Quantity
    base_fee: Quantity = Field(alias="baseFeePerGas", default=0)
    gas_limit: Quantity = Field(alias="gasLimit")


class Log(_Answer):
    """One event as a contract emitted it."""

    address: AddressData
    topics: tuple[HashData, ...]
    data: Data
    block: Quantity = Field(alias="blockNumber")
    block_hash: HashData = Field(alias="blockHash")
    tx: HashData = Field(alias="transactionHash")
    index: Quantity = Field(alias="logIndex")


class Receipt(_Answer):
    """What became of a transaction; `status` 1 is success."""

    tx: HashData = Field(alias="transactionHash")
    status: Quantity
    block: Quantity = Field(alias="blockNumber")
    block_hash: HashData = Field(alias="blockHash")
    gas_used: Quantity = Field(alias="gasUsed")
    gas_price: Quantity = Field(alias="effectiveGasPrice")
    contract: AddressData | None = Field(alias="contractAddress", default=None)
    logs: tuple[Log, ...]
