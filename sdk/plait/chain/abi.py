"""Contract interfaces as shipped: calls, events and errors to and from bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, cast

from eth_abi.abi import decode as abi_decode
from eth_abi.abi import encode as abi_encode
from eth_abi.exceptions import DecodingError

from plait.protocol.errors import MalformedMessageError
from plait.protocol.ids import Hash, keccak, to_hex

CONTRACTS = ("TestToken", "ModelRegistry", "NodeRegistry", "Channels", "Requests", "Reputation")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One argument, result or event field; `parts` are a struct's fields."""

    name: str
    type: str  # canonical: structs as (type,type)
    indexed: bool = False
    parts: tuple[Parameter, ...] = ()

    def plain(self, value: Any) -> object:  # noqa: ANN401 what eth_abi decodes to depends on the type's text
        """Return a decoded value with structs as dicts; addresses stay bytes."""
        if self.type.endswith("[]"):
            one = Parameter(name=self.name, type=self.type[:-2], parts=self.parts)
            return tuple(one.plain(item) for item in value)
        if self.parts:
            return {part.name: part.plain(item) for part, item in zip(self.parts, value, strict=True)}
        return bytes.fromhex(value[2:]) if self.type == "address" else value


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """A function: what it is called with and what it returns."""

    name: str
    selector: bytes
    inputs: tuple[Parameter, ...]
    outputs: tuple[Parameter, ...]

    def _decode(parameters: tuple[Parameter, ...], data: bytes, what: str) -> tuple[Any, ...]:
    try:
        values = abi_decode([each.type for each in parameters], data)
    except (DecodingError, ValueError, OverflowError) as error:
        raise MalformedMessageError(f"{to_hex(data[:64])} does not decode as {what}") from error
    return tuple(each.plain(value) for each, value in zip(parameters, values, strict=True))


def _function(entry: dict[str, Any]) -> Function:
    inputs = _parameters(entry["inputs"])
    return Function(
        name=entry["name"],
        selector=keccak(_signature(entry["name"], inputs))[:4],
        inputs=inputs,
        outputs=_parameters(entry.get("outputs", [])),
    )


def _event(contract: str, entry: dict[str, Any]) -> Event:
    fields = _parameters(entry["inputs"])
    return Event(contract=contract, name=entry["name"], topic=keccak(_signature(entry["name"], fields)), fields=fields)


def _parameters(entries: list[dict[str, Any]]) -> tuple[Parameter, ...]:
    return tuple(_parameter(entry) for entry in entries)


def _parameter(entry: dict[str, Any]) -> Parameter:
    parts = _parameters(entry.get("components", []))
    kind = str(entry["type"])
    if parts:
        kind = f"({','.join(part.type for part in parts)}){kind.removeprefix('tuple')}"
    return Parameter(name=entry["name"], type=kind, indexed=entry.get("indexed", False), parts=parts)


def _signature(name: str, inputs: tuple[Parameter, ...]) -> bytes:
    return f"{name}({','.join(each.type for each in inputs)})".encode()
