"""A node's folder: its hot keys, its certificate and its journal, readable by the operator alone."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from plait.ledger.keys import load_key, save_key
from plait.protocol.typed import Key
from plait_node.errors import ConfigError
from plait_node.wire import Certificate, load_certificate, make_certificate


def _write_secret(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text + "\n")


def _read_secret(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such key file; `plait node init` makes one, a backup restores one") from None


@dataclass(frozen=True, slots=True)
class Home:
    """Paths and keys under one folder."""

    path: Path

    @classmethod
    def create(cls, path: Path, *, service: Key | None = None, dht_seed: bytes | None = None) -> Home:
        """Make the folder with fresh keys unless some are given; refuse to overwrite keys."""
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        home = cls(path)
        save_key(service or Key.generate(), home.service_file)
        _write_secret(home.dht_file, (dht_seed or secrets.token_bytes(32)).hex())
        return home

    @property
    def service_file(self) -> Path:
        """Where the service key lies (secp256k1, hex)."""
        return self.path / "service.key"

    @property
    def dht_file(self) -> Path:
        """Where the DHT key's seed lies (Ed25519, hex)."""
        return self.path / "dht.key"

    @property
    def journal_file(self) -> Path:
        """Where the journal lies (SQLite)."""
        return self.path / "journal.sqlite"

    @property
    def selector_folder(self) -> Path:
        """Where a worker's selector keeps what it learned."""
        return self.path / "selector"

    @property
    def ready_file(self) -> Path:
        """What a running node writes once it serves."""
        return self.path / "ready.json"

    @property
    def lock_file(self) -> Path:
        """What a node's process locks, and says how far it is in."""
        return self.path / "node.lock"

    @property
    def metrics_file(self) -> Path:
        """Where a running node writes its numbers, as Prometheus reads them."""
        return self.path / "metrics.prom"

    def service_key(self) -> Key:
        """Read the service key; raise `KeyFileError`."""
        return load_key(self.service_file)

    def dht_seed(self) -> bytes:
        """Read the 32-byte seed of the DHT key."""
        try:
            seed = bytes.fromhex(_read_secret(self.dht_file))
        except ValueError:
            seed = b""
        if len(seed) != 32:
            raise ConfigError(f"{self.dht_file}: not 32 bytes in hex")
        return seed

    def certificate(self) -> Certificate:
        """Read the node's TLS certificate; make one the first time."""
        certificate, key = self.path / "certificate.pem", self.path / "certificate.key"
        if not certificate.exists():
            made = make_certificate()
            _write_secret(key, made.key_pem.decode().rstrip())
            certificate.write_bytes(made.pem)
        try:
            return load_certificate(certificate.read_bytes(), key.read_bytes())
        except (OSError, ValueError) as error:
            raise ConfigError(f"{certificate}: not usable ({error}); remove both certificate files") from None

    def mark_ready(self, facts: dict[str, object]) -> None:
        """Say that the node serves, for whoever started it."""
        part = self.ready_file.with_suffix(".part")
        part.write_text(json.dumps({"pid": os.getpid(), **facts}), encoding="utf-8")
        part.replace(self.ready_file)

    def clear_ready(self) -> None:
        """Take that word back."""
        self.ready_file.unlink(missing_ok=True)
