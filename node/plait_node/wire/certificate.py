"""Self-signed P-256 certificates: gRPC takes the pinned one as its only root, so no authority is needed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from plait.protocol.ids import Hash

# Every certificate carries this name: who a peer is follows from the pinned hash and from its signed Hello.
SERVER_NAME = "plait"
_LIFE = timedelta(days=3_650)  # the pin in the signed record ends a certificate's use, not this date
_SKEW = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A node's TLS certificate and its key, both PEM."""

    pem: bytes
    key_pem: bytes = field(repr=False)
    fingerprint: Hash  # SHA-256 of the DER


def make_certificate() -> Certificate:
    """Make a fresh P-256 key and a certificate signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, SERVER_NAME)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + _LIFE)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(SERVER_NAME)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return load_certificate(made.public_bytes(serialization.Encoding.PEM), key_pem)


def load_certificate(pem: bytes, key_pem: bytes) -> Certificate:
    """Return a stored certificate; raise `ValueError` when it is no PEM certificate."""
    der = x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)
    return Certificate(pem=pem, key_pem=key_pem, fingerprint=fingerprint(der))


def fingerprint(der: bytes) -> Hash:
    """Return SHA-256 of a DER certificate, as node records pin it."""
    return Hash(hashlib.sha256(der).digest())


def pem_of(der: bytes) -> bytes:
    """Return a DER certificate as PEM; raise `ValueError` when it is none."""
    return x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM)
