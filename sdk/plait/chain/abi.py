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

CONTRACTS = ("Token", "ModelRegistry", "NodeRegistry", "Channels", "Requests", "Reputation")
_SHIPPED_AS = {"Token": "TestToken"}  # a deployment may serve any token; ours for local chains has the interface


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

    def encode(self, *arguments: object) -> bytes:
        """Return calldata."""
        return self.selector + abi_encode([each.type for each in self.inputs], arguments)

    def decode(self, data: bytes) -> tuple[Any, ...]:
        """Return the results; raise `MalformedMessageError`."""
        return _decode(self.outputs, data, self.name)

    def decode_inputs(self, data: bytes) -> dict[str, Any]:
        """Return the arguments in calldata or in a custom error, by name; raise `MalformedMessageError`."""
        values = _decode(self.inputs, data[4:], self.name)
        return {each.name or str(at): value for at, (each, value) in enumerate(zip(self.inputs, values, strict=True))}


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An event: how a log of it is recognised and read."""

    contract: str
    name: str
    topic: Hash
    fields: tuple[Parameter, ...]

    def decode(self, topics: Sequence[bytes], data: bytes) -> dict[str, Any]:
        """Return the fields by name; raise `MalformedMessageError`."""
        indexed = [each for each in self.fields if each.indexed]
        if len(topics) != len(indexed) + 1 or topics[0] != self.topic:
            raise MalformedMessageError(f"this log is no {self.contract}.{self.name}")
        values = {
            each.name: _decode((each,), topic, self.name)[0] for each, topic in zip(indexed, topics[1:], strict=True)
        }
        rest = tuple(each for each in self.fields if not each.indexed)
        values |= dict(zip((each.name for each in rest), _decode(rest, data, self.name), strict=True))
        return {each.name: values[each.name] for each in self.fields}


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """One contract as shipped."""

    name: str
    abi: list[dict[str, Any]]
    bytecode: bytes
    constructor: tuple[Parameter, ...]
    functions: Mapping[str, Function]
    events: Mapping[Hash, Event]
    errors: Mapping[bytes, Function]

    def deployment(self, *arguments: object) -> bytes:
        """Return the code that deploys the contract with these constructor arguments."""
        return self.bytecode + abi_encode([each.type for each in self.constructor], arguments)

    def event(self, name: str) -> Event:
        """Return an event by its name."""
        return next(event for event in self.events.values() if event.name == name)


@cache
def artifact(name: str) -> Artifact:
    """Return a shipped contract by its name."""
    file = _SHIPPED_AS.get(name, name)
    raw = cast("dict[str, Any]", json.loads(files("plait.protocol.abi").joinpath(f"{file}.json").read_text("utf-8")))
    abi = cast("list[dict[str, Any]]", raw["abi"])
    functions = [_function(entry) for entry in abi if entry["type"] == "function"]
    events = [_event(name, entry) for entry in abi if entry["type"] == "event"]
    errors = [_function(entry) for entry in abi if entry["type"] == "error"]
    constructors = [entry for entry in abi if entry["type"] == "constructor"]
    return Artifact(
        name=name,
        abi=abi,
        bytecode=bytes.fromhex(str(raw["bytecode"]).removeprefix("0x")),
        constructor=_parameters(constructors[0]["inputs"]) if constructors else (),
        functions={each.name: each for each in functions},
        events={each.topic: each for each in events},
        errors={each.selector: each for each in errors},
    )


@cache
def all_errors() -> Mapping[bytes, Function]:
    """Return the custom errors of all contracts by selector."""
    return {selector: error for name in CONTRACTS for selector, error in artifact(name).errors.items()}


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
