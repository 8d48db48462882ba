"""Salted commitments to what is private: prompt, stop strings, and the tokens delivered so far."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import rfc8785

from plait.protocol.errors import MalformedMessageError
from plait.protocol.ids import HASH_ZERO, Hash, keccak
from plait.protocol.sealing import ContentKey


def id_bytes(token: int) -> bytes:
    """Return a token id as everywhere on the wire and in hashes: 4 bytes, big-endian."""
    if not 0 <= token < 1 << 32:
        raise MalformedMessageError("a token id fits 4 bytes")
    return token.to_bytes(4, "big")


def ids_bytes(tokens: Iterable[int]) -> bytes:
    """Return token ids back to back, 4 bytes each."""
    return b"".join(map(id_bytes, tokens))


def ids_from(data: bytes) -> list[int]:
    """Return the token ids in 4-byte groups; raise `MalformedMessageError`."""
    if len(data) % 4:
        raise MalformedMessageError("token ids take 4 bytes each")
    return [int.from_bytes(data[at : at + 4], "big") for at in range(0, len(data), 4)]


def prompt_commitment(content_key: ContentKey, ids: Sequence[int]) -> Hash:
    """Return `Request.prompt`."""
    return keccak(content_key.salt("prompt"), ids_bytes(ids))


def stop_commitment(content_key: ContentKey, strings: Sequence[str]) -> Hash:
    """Return `Sampling.stop`; 32 zero bytes when there are no stop strings."""
    if not strings:
        return HASH_ZERO
    return keccak(content_key.salt("stop"), rfc8785.dumps(list(strings)))


class RunningHash:
    """The hash over every token sampled for a request, over all attempts, the end token included."""

    def __init__(self, content_key: ContentKey, request: Hash, at: Hash | None = None) -> None:
        self.value: Hash = keccak(content_key.salt("tokens"), request) if at is None else at

    def extend(self, ids: Iterable[int]) -> Hash:
        """Add sampled ids and return the new value."""
        for token in ids:
            self.value = keccak(self.value, id_bytes(token))
        return self.value
