"""EIP-712: struct hashes, digests, signing and recovering under plait's one domain."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Generic, TypeVar

from coincurve import PrivateKey, PublicKey

from plait.protocol.errors import BadSignatureError, MalformedMessageError
from plait.protocol.ids import Address, Hash, Signature, keccak
from plait.protocol.messages import Field, Message, layout

M = TypeVar("M", bound=Message)

_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
_TOP_BIT = 1 << 255
_DOMAIN_TYPE = b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """The one EIP-712 domain of a deployment; `channels` is its verifying contract."""

    chain_id: int
    channels: Address

    @property
    def separator(self) -> Hash:
        """Return the domain separator."""
        return _separator(self.chain_id, self.channels)


@cache
def _separator(chain_id: int, channels: Address) -> Hash:
    head = keccak(_DOMAIN_TYPE) + keccak(b"plait") + keccak(b"1")
    return keccak(head, chain_id.to_bytes(32, "big"), bytes(12), channels)


def encode_type(kind: type[Message]) -> str:
    """Return EIP-712's encodeType: the struct, then the structs it names, sorted."""
    used: set[type[Message]] = set()
    _collect(kind, used)
    used.discard(kind)
    return _own_type(kind) + "".join(_own_type(other) for other in sorted(used, key=lambda k: k.__name__))


def struct_hash(message: Message) -> Hash:
    """Return EIP-712's hashStruct."""
    return _plan(type(message))(message)


def digest(domain: Domain, message: Message) -> Hash:
    """Return the EIP-712 digest, which is what is signed."""
    return keccak(b"\x19\x01", domain.separator, struct_hash(message))


def recover(domain: Domain, message: Message, signature: bytes) -> Address:
    """Return the signing address; raise `BadSignatureError` unless r, s and parity are in range and s is low."""
    return recover_digest(digest(domain, message), signature)


def recover_digest(hashed: bytes, signature: bytes) -> Address:
    """Return the address that signed these 32 bytes (EIP-2098); raise `BadSignatureError`."""
    if len(signature) != 64:
        raise BadSignatureError("a signature has 64 bytes (EIP-2098)")
    r, vs = signature[:32], int.from_bytes(signature[32:], "big")
    s = vs & (_TOP_BIT - 1)
    if not 0 < int.from_bytes(r, "big") < _ORDER or not 0 < s <= _ORDER // 2:
        raise BadSignatureError("the signature's r or s is out of range")
    recoverable = r + s.to_bytes(32, "big") + bytes([vs >> 255])
    try:
        public = PublicKey.from_signature_and_message(recoverable, hashed, hasher=None)
    except Exception as error:  # coincurve raises a bare Exception here
        raise BadSignatureError("no key made this signature") from error
    return _address_of(public)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed(Generic[M]):
    """A message and its signature; who signed depends on the domain."""

    message: M
    signature: Signature

    def __post_init__(self) -> None:
        if type(self.signature) is not bytes or len(self.signature) != 64:
            raise MalformedMessageError("a signature has 64 bytes (EIP-2098)")

    def signer(self, domain: Domain) -> Address:
        """Return the recovered signer; raise `BadSignatureError`."""
        return recover(domain, self.message, self.signature)

    def digest(self, domain: Domain) -> Hash:
        """Return the message's digest."""
        return digest(domain, self.message)

    def struct_hash(self) -> Hash:
        """Return the message's struct hash."""
        return struct_hash(self.message)


@dataclass(frozen=True, slots=True, eq=False)
class Key:
    """A secp256k1 key that signs messages; its secret never shows in repr or logs."""

    _secret: PrivateKey = field(repr=False)
    address: Address

    @classmethod
    def generate(cls) -> Key:
        """Make a key from the system's randomness."""
        return cls.from_bytes(PrivateKey(None).secret)

    @classmethod
    def from_bytes(cls, secret: bytes) -> Key:
        """Take 32 secret bytes; raise `MalformedMessageError` when they are no key."""
        try:
            private = PrivateKey(secret) if len(secret) == 32 else None
        except ValueError:
            private = None
        if private is None:
            raise MalformedMessageError("a secret key has 32 bytes and lies below the curve's order")
        return cls(private, _address_of(private.public_key))

    @classmethod
    def from_hex(cls, text: str) -> Key:
        """Take 64 hex digits, with or without 0x."""
        try:
            return cls.from_bytes(bytes.fromhex(text.strip().removeprefix("0x")))
        except MalformedMessageError:
            raise
        except ValueError as error:
            raise MalformedMessageError("a secret key is 64 hex digits") from error

    def secret_hex(self) -> str:
        """Return the secret as 0x hex: for key files and chain libraries only."""
        return "0x" + self._secret.secret.rjust(32, b"\0").hex()

    def sign_digest(self, hashed: bytes) -> Signature:
        """Sign 32 bytes; deterministic (RFC 6979), low s, EIP-2098."""
        raw = self._secret.sign_recoverable(hashed, hasher=None)  # pyright: ignore[reportUnknownMemberType] cffi pointers
        vs = int.from_bytes(raw[32:64], "big") | (_TOP_BIT if raw[64] else 0)
        return Signature(raw[:32] + vs.to_bytes(32, "big"))

    def sign(self, domain: Domain, message: Message) -> Signature:
        """Sign a message's digest."""
        return self.sign_digest(digest(domain, message))

    def signed(self, domain: Domain, message: M) -> Signed[M]:
        """Return the message with this key's signature."""
        return Signed(message=message, signature=self.sign(domain, message))


def random_hash() -> Hash:
    """Return 32 fresh random bytes, for seeds and nonces."""
    return Hash(secrets.token_bytes(32))


def _address_of(public: PublicKey) -> Address:
    return Address(keccak(public.format(compressed=False)[1:])[12:])


def _collect(kind: type[Message], into: set[type[Message]]) -> None:
    into.add(kind)
    for each in layout(kind):
        if each.struct is not None and each.struct not in into:
            _collect(each.struct, into)


def _own_type(kind: type[Message]) -> str:
    parts = (f"{each.solidity}{'[]' if each.is_list else ''} {each.wire_name}" for each in layout(kind))
    return f"{kind.__name__}({','.join(parts)})"


@cache
def _plan(kind: type[Message]) -> Callable[[Message], Hash]:
    type_hash = keccak(encode_type(kind).encode())
    steps = tuple((each.name, _encoder(each)) for each in layout(kind))

    def run(message: Message) -> Hash:
        return keccak(type_hash, *(encode(getattr(message, name)) for name, encode in steps))

    return run


def _encoder(spec: Field) -> Callable[[Any], bytes]:
    one = _encode_item(spec)
    if not spec.is_list:
        return one
    return lambda items: keccak(*(one(item) for item in items))


def _encode_item(spec: Field) -> Callable[[Any], bytes]:
    if spec.struct is not None:
        return _plan(spec.struct)
    if spec.solidity.startswith("uint") or spec.solidity == "bool":
        return lambda value: int(value).to_bytes(32, "big")
    if spec.solidity == "address":
        return lambda value: bytes(12) + value
    if spec.solidity == "bytes":
        return keccak
    return lambda value: value.ljust(32, b"\0")
