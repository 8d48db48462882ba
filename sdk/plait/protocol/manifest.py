"""What a model is: its manifest, whose hash is the model id, and the profiles it may be run under."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import rfc8785

from plait.protocol.errors import MalformedMessageError, ManifestError
from plait.protocol.ids import Hash, hash32, keccak, to_hex
from plait.protocol.tree import tree_root

VERSION = 1
MAX_BYTES = 256 * 1_024
MAX_NAME = 128

JsonValue = str | int | float | bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The numerics a job is run and judged under."""

    name: str
    weights: str  # dtype of the weights as computed with, "fp32"
    accumulate: str  # dtype of sums
    prefill_codec: str  # of rows between stages, of steps below inputTokens: "fp32", "bf16", "int8"
    decode_codec: str  # of those of later steps
    sampler: str  # "plait/1"

    def to_value(self) -> dict[str, JsonValue]:
        """Return the JSON value."""
        return {
            "accumulate": self.accumulate,
            "decodeCodec": self.decode_codec,
            "name": self.name,
            "prefillCodec": self.prefill_codec,
            "sampler": self.sampler,
            "weights": self.weights,
        }

    @property
    def profile_id(self) -> Hash:
        """Return the hash of the canonical JSON."""
        return keccak(rfc8785.dumps(self.to_value()))


FP32_STRICT = Profile(
    name="fp32-strict", weights="fp32", accumulate="fp32", prefill_codec="fp32", decode_codec="fp32", sampler="plait/1"
)


def _rounded(weights: str) -> Profile:
    """Return the profile of weights rounded to a type; sums are fp32, and rows travel in fp32."""
    return replace(FP32_STRICT, name=weights, weights=weights)


def _slow_links(profile: Profile, codec: str) -> Profile:
    """Return a profile whose prompt rows travel in fewer bytes; rows behind the prompt stay, being few."""
    return replace(profile, name=f"{profile.weights}-prefill-{codec}", prefill_codec=codec)


_WEIGHTS = (FP32_STRICT, _rounded("bf16"), _rounded("int8"), _rounded("int4"))

# What a model may be published under, by name; which of them a job may run under is its payer's to say.
PROFILES: Mapping[str, Profile] = {profile.name: profile for profile in _WEIGHTS} | {
    profile.name: profile for codec in ("bf16", "int8") for each in _WEIGHTS for profile in (_slow_links(each, codec),)
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """One weight tensor as it lies in its file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    sha256: bytes

    def leaf(self) -> bytes:
        """Return canonical JSON of [name, dtype, shape, SHA-256 as 0x hex]."""
        return rfc8785.dumps([self.name, self.dtype, list(self.shape), to_hex(self.sha256)])


def weights_root(tensors: Iterable[Tensor]) -> Hash:
    """Return the root over the tensors, sorted by the UTF-8 bytes of their names."""
    return tree_root(tensor.leaf() for tensor in sorted(tensors, key=lambda tensor: tensor.name.encode()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything that decides what a model answers; files are named by their keccak256."""

    name: str
    architecture: str
    config: Mapping[str, JsonValue] = field(hash=False)
    blocks: int
    hidden: int
    vocabulary: int  # rows of the output head, V of section 7
    context: int  # steps the model was trained for
    tokenizer: Hash
    chat_template: Hash
    bos_token: str
    eos_token: str
    end_tokens: tuple[int, ...]
    weights: Hash
    licence: str
    profiles: tuple[Profile, ...]

    def to_json(self) -> bytes:
        """Return canonical JSON (RFC 8785)."""
        value: dict[str, Any] = {
            "architecture": self.architecture,
            "blocks": self.blocks,
            "bosToken": self.bos_token,
            "chatTemplate": to_hex(self.chat_template),
            "config": dict(self.config),
            "context": self.context,
            "endTokens": list(self.end_tokens),
            "eosToken": self.eos_token,
            "hidden": self.hidden,
            "licence": self.licence,
            "name": self.name,
            "profiles": [profile.to_value() for profile in self.profiles],
            "tokenizer": to_hex(self.tokenizer),
            "version": VERSION,
            "vocabulary": self.vocabulary,
            "weights": to_hex(self.weights),
        }
        return rfc8785.dumps(value)

    def _canonical(self) -> bytes | None:
        """Return canonical JSON, None for texts and numbers that have none."""
        try:
            return self.to_json()
        except (ValueError, RecursionError):
            return None

    @property
    def model_id(self) -> Hash:
        """Return the hash of the canonical JSON."""
        return keccak(self.to_json())

    def profile(self, profile_id: Hash) -> Profile | None:
        """Return the profile of this id, if the model has it."""
        return next((profile for profile in self.profiles if profile.profile_id == profile_id), None)

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """Read a manifest from anyone; raise `ManifestError` unless it is exactly canonical."""
        value = _parse(data)
        made = cls(
            name=_text(value, "name"),
            architecture=_text(value, "architecture"),
            config=_config(value),
            blocks=_count(value, "blocks", 0xFFFF),
            hidden=_count(value, "hidden", 1 << 20),
            vocabulary=_count(value, "vocabulary", 1 << 24),
            context=_count(value, "context", 1 << 31),
            tokenizer=_hash(value, "tokenizer"),
            chat_template=_hash(value, "chatTemplate"),
            bos_token=_text(value, "bosToken", least=0),
            eos_token=_text(value, "eosToken", least=0),
            end_tokens=_end_tokens(value),
            weights=_hash(value, "weights"),
            licence=_text(value, "licence"),
            profiles=_profiles(value),
        )
        if made._canonical() != data:
            raise ManifestError("the manifest is not canonical JSON with exactly the fields of docs/protocol.md")
        return made


def _parse(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_BYTES:
        raise ManifestError(f"a manifest has at most {MAX_BYTES} bytes")
    try:
        value: object = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ManifestError("the manifest is no JSON") from error
    if not isinstance(value, dict):
        raise ManifestError("the manifest is no JSON object")
    found = cast("dict[str, Any]", value)
    if found.get("version") != VERSION:
        raise ManifestError(f"this manifest's version is not {VERSION}; a newer plait may read it")
    return found


def _text(value: dict[str, Any], key: str, least: int = 1) -> str:
    found: object = value.get(key)
    if not isinstance(found, str) or not least <= len(found) <= MAX_NAME:
        raise ManifestError(f"{key} is a string of {least} to {MAX_NAME} characters")
    return found


def _count(value: dict[str, Any], key: str, most: int) -> int:
    found: object = value.get(key)
    if type(found) is not int or not 1 <= found <= most:
        raise ManifestError(f"{key} is a whole number from 1 to {most}")
    return found


def _hash(value: dict[str, Any], key: str) -> Hash:
    found: object = value.get(key)
    try:
        return hash32(found if isinstance(found, str) else b"")
    except MalformedMessageError as error:
        raise ManifestError(f"{key} is a hash: 0x and 64 hex digits") from error


def _config(value: dict[str, Any]) -> dict[str, JsonValue]:
    found: object = value.get("config")
    if not isinstance(found, dict):
        raise ManifestError("config is an object of numbers, strings and booleans")
    config = cast("dict[str, object]", found)
    if len(config) > 256 or not all(item is None or isinstance(item, str | int | float) for item in config.values()):
        raise ManifestError("config is an object of at most 256 numbers, strings and booleans")
    return cast("dict[str, JsonValue]", config)


def _end_tokens(value: dict[str, Any]) -> tuple[int, ...]:
    found: object = value.get("endTokens")
    items = cast("list[object]", found) if isinstance(found, list) else []
    if not 1 <= len(items) <= 64 or not all(type(item) is int and 0 <= item < 1 << 32 for item in items):
        raise ManifestError("endTokens holds 1 to 64 token ids")
    return tuple(cast("list[int]", items))


def _profiles(value: dict[str, Any]) -> tuple[Profile, ...]:
    found: object = value.get("profiles")
    items = cast("list[object]", found) if isinstance(found, list) else []
    if not 1 <= len(items) <= 16 or not all(isinstance(item, dict) for item in items):
        raise ManifestError("profiles holds 1 to 16 objects")
    return tuple(_profile(cast("dict[str, Any]", item)) for item in items)


def _profile(value: dict[str, Any]) -> Profile:
    return Profile(
        name=_text(value, "name"),
        weights=_text(value, "weights"),
        accumulate=_text(value, "accumulate"),
        prefill_codec=_text(value, "prefillCodec"),
        decode_codec=_text(value, "decodeCodec"),
        sampler=_text(value, "sampler"),
    )
