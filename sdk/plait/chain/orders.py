"""What a request on chain says, as its asker writes it and as `Requests` keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any

from eth_abi.abi import encode as abi_encode

from plait.chain.abi import artifact
from plait.protocol.ids import HASH_ZERO, Address, Hash, keccak
from plait.protocol.messages import Sampling
from plait.protocol.money import MILLION


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What an on-chain request asks for, the fields in the contract's order.

    `fee` in base units, times in Unix seconds, `temperature` and `top_p` in millionths. Nobody but the node ends the
    request before `exclusive_until`, which is a minute away at least; nodes answer only while that lasts.
    `callback_gas` is for callers that are contracts.
    """

    gateway: Address
    model: Hash
    profile: Hash
    temperature: int = 0
    top_p: int = MILLION
    top_k: int = 0
    max_tokens: int
    fee: int
    exclusive_until: int
    deadline: int
    callback_gas: int = 0

    def encodable(self) -> tuple[object, ...]:
        """Return the fields as the contract's struct has them."""
        return astuple(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestParameters:
    """What `Requests` emitted about a request and keeps the hash of, the fields in the contract's order."""

    payer: Address
    gateway: Address
    model: Hash
    profile: Hash
    prompt: Hash
    temperature: int
    top_p: int
    top_k: int
    input_tokens: int
    max_tokens: int
    fee: int
    exclusive_until: int
    deadline: int
    callback_gas: int

    @classmethod
    def from_event(cls, raw: Mapping[str, Any]) -> RequestParameters:
        """Read the struct of a `Requested` event."""
        return cls(
            payer=raw["payer"],
            gateway=raw["gateway"],
            model=Hash(raw["model"]),
            profile=Hash(raw["profile"]),
            prompt=Hash(raw["prompt"]),
            temperature=raw["temperature"],
            top_p=raw["topP"],
            top_k=raw["topK"],
            input_tokens=raw["inputTokens"],
            max_tokens=raw["maxTokens"],
            fee=raw["fee"],
            exclusive_until=raw["exclusiveUntil"],
            deadline=raw["deadline"],
            callback_gas=raw["callbackGas"],
        )

    @property
    def sampling(self) -> Sampling:
        """Return how the answer is sampled; a request on chain has no stop strings."""
        return Sampling(temperature=self.temperature, top_p=self.top_p, top_k=self.top_k, stop=HASH_ZERO)

    def encodable(self) -> tuple[object, ...]:
        """Return the fields as the contract's struct has them."""
        return astuple(self)

    def hash(self) -> Hash:
        """Return what `Requests.openRequest` says while the request is open: keccak256(abi.encode(params))."""
        inputs = artifact("Requests").functions["fulfil"].inputs
        struct = next(each.type for each in inputs if each.name == "params")
        return keccak(abi_encode([struct], [self.encodable()]))
