"""Who can read what: the content key K of a request, capsules for workers, sealed prompt and answer."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import mlkem, x25519
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from google.protobuf.message import DecodeError

from plait.protocol.errors import SealingError
from plait.protocol.ids import Address, Hash
from plait.protocol.pb import signed_pb2

X25519, HYBRID = 0x0020, 0x647A  # kem numbers of HPKE
CAPSULE_BYTES = {X25519: 32 + 32 + 16, HYBRID: 1_120 + 32 + 16}
PUBLIC_BYTES = {X25519: 32, HYBRID: 1_216}

PROMPT_BLOCK = 1_024
TAG_BYTES = 16  # of ChaCha20-Poly1305
MAX_PROMPT_BYTES = 880 * 1_024
MAX_STOPS, MAX_STOP_BYTES = 16, 256
MAX_CHUNK_IDS = 64
MAX_NOTE_BYTES = 16 * 1_024

SaltName = Literal["prompt", "tokens", "rows", "stop"]
_IDS, _NOTE = b"\0", b"\1"


@dataclass(frozen=True, slots=True, eq=False)
class ContentKey:
    """K of one request: whoever holds it reads the prompt and the answer."""

    _secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self._secret) != 32:
            raise SealingError("a content key has 32 bytes")

    @classmethod
    def generate(cls) -> ContentKey:
        """Make a fresh key: one for each request, never again."""
        return cls(secrets.token_bytes(32))

    @classmethod
    def public(cls) -> ContentKey:
        """Return the key of on-chain requests, whose prompt is public."""
        return cls(bytes(32))

    def secret_bytes(self) -> bytes:
        """Return K itself: for journals and capsules only."""
        return self._secret

    def salt(self, name: SaltName) -> bytes:
        """Return one of the four salts; salt/prompt and salt/tokens never go to stages."""
        return self._derive(b"plait/1/salt/" + name.encode())

    def prompt_key(self, request: Hash) -> bytes:
        """Return the key that seals the prompt."""
        return self._derive(b"plait/1/prompt" + request)

    def answer_key(self, job: Hash) -> bytes:
        """Return the key that seals one Job's answer."""
        return self._derive(b"plait/1/answer" + job)

    def _derive(self, info: bytes) -> bytes:
        return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(self._secret)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PrekeySecret:
    """The secret half of a worker's prekey; `secret` are 32 (X25519) or 64 + 32 bytes (hybrid: seed, X25519)."""

    kem: int
    secret: bytes = field(repr=False)

    @classmethod
    def generate(cls, kem: int = X25519) -> PrekeySecret:
        """Make a prekey for one of the two kems."""
        _suite(kem)
        return cls(kem=kem, secret=secrets.token_bytes(32 if kem == X25519 else 96))

    @property
    def public(self) -> bytes:
        """Return the public key as a Prekey carries it."""
        if self.kem == X25519:
            return x25519.X25519PrivateKey.from_private_bytes(self.secret).public_key().public_bytes_raw()
        inner = mlkem.MLKEM768PrivateKey.from_seed_bytes(self.secret[:64]).public_key().public_bytes_raw()
        return inner + x25519.X25519PrivateKey.from_private_bytes(self.secret[64:]).public_key().public_bytes_raw()

    def open(self, capsule: bytes, *, request: Hash, node: Address) -> ContentKey:
        """Return the content key in a capsule; raise `SealingError`."""
        if len(capsule) != CAPSULE_BYTES.get(self.kem):
            raise SealingError(f"a capsule of kem {self.kem:#06x} has {CAPSULE_BYTES.get(self.kem)} bytes")
        try:
            opened = _suite(self.kem).decrypt(capsule, self._private(), info=_capsule_info(request, node))
        except (InvalidTag, ValueError) as error:
            raise SealingError("the capsule does not open with this prekey for this request and node") from error
        return ContentKey(opened)

    def _private(self) -> x25519.X25519PrivateKey | MLKEM768X25519PrivateKey:
        if self.kem == X25519:
            return x25519.X25519PrivateKey.from_private_bytes(self.secret)
        return MLKEM768X25519PrivateKey(
            mlkem.MLKEM768PrivateKey.from_seed_bytes(self.secret[:64]),
            x25519.X25519PrivateKey.from_private_bytes(self.secret[64:]),
        )


def seal_capsule(content_key: ContentKey, *, prekey_public: bytes, kem: int, request: Hash, node: Address) -> bytes:
    """Seal K to one worker's prekey (HPKE base mode, no aad)."""
    suite = _suite(kem)
    if len(prekey_public) != PUBLIC_BYTES[kem]:
        raise SealingError(f"a prekey of kem {kem:#06x} has {PUBLIC_BYTES[kem]} bytes")
    try:
        public = _public(prekey_public, kem)
        return suite.encrypt(content_key.secret_bytes(), public, info=_capsule_info(request, node))
    except ValueError as error:
        raise SealingError("this prekey is no usable public key") from error


def seal_prompt(content_key: ContentKey, request: Hash, ids: Sequence[int], stop: Sequence[str] = ()) -> bytes:
    """Seal token ids and stop strings: 4 bytes of length, protobuf, zeros to a multiple of 1 KiB."""
    body = signed_pb2.Prompt(ids=ids, stop=stop).SerializeToString(deterministic=True)
    plain = len(body).to_bytes(4, "big") + body
    plain += bytes(-len(plain) % PROMPT_BLOCK)
    return ChaCha20Poly1305(content_key.prompt_key(request)).encrypt(_nonce(0), plain, request)


def open_prompt(content_key: ContentKey, request: Hash, sealed: bytes) -> tuple[list[int], list[str]]:
    """Return (ids, stop strings); raise `SealingError` for anything that is not exactly a sealed prompt."""
    if len(sealed) > MAX_PROMPT_BYTES:
        raise SealingError(f"a sealed prompt has at most {MAX_PROMPT_BYTES} bytes")
    plain = _decrypt(content_key.prompt_key(request), 0, sealed, bytes(request))
    size = int.from_bytes(plain[:4], "big")
    body, padding = plain[4 : 4 + size], plain[4 + size :]
    if len(body) != size or len(padding) >= PROMPT_BLOCK or any(padding) or len(plain) % PROMPT_BLOCK:
        raise SealingError("the sealed prompt is not padded as docs/protocol.md says")
    try:
        prompt = signed_pb2.Prompt.FromString(body)
    except DecodeError as error:
        raise SealingError("the sealed prompt holds no prompt") from error
    stop = check_stop(list(prompt.stop))
    return list(prompt.ids), stop


def check_stop(stop: list[str]) -> list[str]:
    """Return the stop strings; raise `SealingError` when they break the limits."""
    if len(stop) > MAX_STOPS or any(not 0 < len(text.encode()) <= MAX_STOP_BYTES for text in stop):
        raise SealingError(f"give at most {MAX_STOPS} stop strings of 1 to {MAX_STOP_BYTES} bytes")
    return stop


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What closes a Job's answer: the selector's prediction and reason, as canonical JSON."""

    text: bytes

    def value(self) -> dict[str, Any]:
        """Return the JSON object; raise `SealingError`."""
        try:
            found: object = json.loads(self.text)
        except (ValueError, RecursionError) as error:
            raise SealingError("the answer's note is no JSON") from error
        if not isinstance(found, dict):
            raise SealingError("the answer's note is no JSON object")
        return cast("dict[str, Any]", found)


class AnswerSealer:
    """Seals one Job's answer chunk by chunk; never make two for the same Job: nonces would repeat."""

    def __init__(self, content_key: ContentKey, *, request: Hash, job: Hash) -> None:
        self._cipher = ChaCha20Poly1305(content_key.answer_key(job))
        self._aad = request + job
        self.count = 0

    def seal(self, ids: Sequence[int]) -> bytes:
        """Seal 1 to 64 token ids."""
        if not 1 <= len(ids) <= MAX_CHUNK_IDS:
            raise SealingError(f"a chunk holds 1 to {MAX_CHUNK_IDS} token ids")
        return self._seal(_IDS + b"".join(token.to_bytes(4, "big") for token in ids))

    def seal_note(self, text: bytes) -> bytes:
        """Seal the Job's note; it is the last chunk."""
        if len(text) > MAX_NOTE_BYTES:
            raise SealingError(f"a note has at most {MAX_NOTE_BYTES} bytes")
        return self._seal(_NOTE + text)

    def _seal(self, plain: bytes) -> bytes:
        sealed = self._cipher.encrypt(_nonce(self.count), plain, self._aad)
        self.count += 1
        return sealed


class AnswerOpener:
    """Opens one Job's chunks in order."""

    def __init__(self, content_key: ContentKey, *, request: Hash, job: Hash) -> None:
        self._key = content_key.answer_key(job)
        self._aad = request + job
        self._closed = False
        self.count = 0

    def open(self, sealed: bytes) -> tuple[int, ...] | Note:
        """Return the next chunk's ids, or the note; raise `SealingError` when it is not the next chunk."""
        if self._closed or len(sealed) > MAX_NOTE_BYTES + 17:
            raise SealingError("no chunk follows the note, and none is that long")
        plain = _decrypt(self._key, self.count, sealed, self._aad)
        kind, body = plain[:1], plain[1:]
        self.count += 1
        if kind == _NOTE:
            self._closed = True
            return Note(text=body)
        if kind != _IDS or len(body) % 4 or not 4 <= len(body) <= 4 * MAX_CHUNK_IDS:
            raise SealingError(f"a chunk holds 1 to {MAX_CHUNK_IDS} token ids of 4 bytes")
        return tuple(int.from_bytes(body[at : at + 4], "big") for at in range(0, len(body), 4))


def _decrypt(key: bytes, count: int, sealed: bytes, aad: bytes) -> bytes:
    try:
        return ChaCha20Poly1305(key).decrypt(_nonce(count), sealed, aad)
    except InvalidTag as error:
        raise SealingError("this was not sealed under the request's content key, or was changed") from error


def _nonce(count: int) -> bytes:
    return count.to_bytes(12, "big")


def _capsule_info(request: Hash, node: Address) -> bytes:
    return b"plait/1/key" + request + node


def _suite(kem: int) -> Suite:
    kems = {X25519: KEM.X25519, HYBRID: KEM.MLKEM768_X25519}
    if kem not in kems:
        raise SealingError(f"kem {kem:#06x} is unknown; use 0x0020 (X25519) or 0x647a (hybrid)")
    return Suite(kems[kem], KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)


def _public(raw: bytes, kem: int) -> x25519.X25519PublicKey | MLKEM768X25519PublicKey:
    if kem == X25519:
        return x25519.X25519PublicKey.from_public_bytes(raw)
    return MLKEM768X25519PublicKey(
        mlkem.MLKEM768PublicKey.from_public_bytes(raw[:1_184]), x25519.X25519PublicKey.from_public_bytes(raw[1_184:])
    )
