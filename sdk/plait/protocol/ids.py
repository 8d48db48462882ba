"""Names of things: addresses, hashes, signatures, and the ids computed from them."""

from __future__ import annotations

from typing import NewType

import rfc8785

from plait.protocol.errors import MalformedMessageError
from plait.protocol.sponge import keccak_of

Address = NewType("Address", bytes)  # 20 bytes
Hash = NewType("Hash", bytes)  # 32 bytes
Group = NewType("Group", bytes)  # 8 bytes
Signature = NewType("Signature", bytes)  # 64 bytes, EIP-2098

ADDRESS_ZERO = Address(bytes(20))
HASH_ZERO = Hash(bytes(32))


def keccak(*parts: bytes) -> Hash:
    """Return keccak256 over the parts joined."""
    return Hash(keccak_of(b"".join(parts)))


def to_hex(value: bytes) -> str:
    """Return lower-case 0x hex."""
    return "0x" + value.hex()


def address(value: str | bytes) -> Address:
    """Return 20 bytes; raise `MalformedMessageError` for anything else."""
    return Address(_exactly(value, 20, "an address"))


def hash32(value: str | bytes) -> Hash:
    """Return 32 bytes; raise `MalformedMessageError` for anything else."""
    return Hash(_exactly(value, 32, "a hash"))


def channel_id(payer: Address, payee: Address, signer: Address) -> Hash:
    """Return keccak256(abi.encode(payer, payee, signer))."""
    return keccak(*(bytes(12) + address(part) for part in (payer, payee, signer)))


def authorization_nonce(channel: Hash, salt: Hash) -> Hash:
    """Return the nonce that binds an EIP-3009 authorization to one channel: keccak256(abi.encode(channel, salt))."""
    return keccak(hash32(channel), hash32(salt))


def group_id(model: Hash, klass: str, tier: int, cohort: int) -> Group:
    """Return the first 8 bytes of the hash of the canonical JSON of [model, class, tier, cohort]."""
    return Group(keccak(rfc8785.dumps([to_hex(hash32(model)), klass, tier, cohort]))[:8])


def _exactly(value: str | bytes, size: int, what: str) -> bytes:
    if isinstance(value, str):
        digits = value[2:] if value[:2] in ("0x", "0X") else value
        try:
            value = bytes.fromhex(digits) if len(digits) == 2 * size else b""
        except ValueError:
            value = b""
    if len(value) != size:
        raise MalformedMessageError(f"{what} has {size} bytes; give 0x and {2 * size} hex digits")
    return bytes(value)
