"""Keys of a broker's users: Ed25519, written as NATS writes them (base32 of kind, key and CRC-16)."""

from __future__ import annotations

import base64
import binascii
import secrets
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from plait_node.broker.errors import NkeyError

_USER = 20 << 3  # shows as a leading U
_SEED = bytes((18 << 3 | _USER >> 5, (_USER & 31) << 3))  # SU


@dataclass(frozen=True, slots=True)
class Nkey:
    """One user's key pair."""

    secret: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> Nkey:
        """Return a fresh key."""
        return cls(secrets.token_bytes(32))

    @classmethod
    def from_seed(cls, text: str) -> Nkey:
        """Read a user's seed; raise `NkeyError`."""
        text = text.strip()
        try:
            raw = base64.b32decode(text + "=" * (-len(text) % 8))
        except ValueError:
            raw = b""
        if len(raw) != 36 or raw[:2] != _SEED or _checked(raw[:-2]) != raw:
            raise NkeyError("this is no seed of a broker's user: one line that begins with SU, 58 characters")
        return cls(raw[2:-2])

    @property
    def seed(self) -> str:
        """Return the secret as a line of text."""
        return _text(_SEED + self.secret)

    @property
    def public(self) -> str:
        """Return the name under which a server knows the user."""
        return _text(bytes((_USER,)) + self._key().public_key().public_bytes_raw())

    def sign(self, nonce: str) -> bytes:
        """Return the signature of a server's nonce, in base64."""
        return base64.b64encode(self._key().sign(nonce.encode()))

    def _key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.secret)


def _checked(raw: bytes) -> bytes:
    return raw + binascii.crc_hqx(raw, 0).to_bytes(2, "little")


def _text(raw: bytes) -> str:
    return base64.b32encode(_checked(raw)).decode().rstrip("=")
