"""A node's folder: its hot keys, its certificate and its journal, readable by the operator alone."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from plait.protocol.typed import Key
from plait_node.errors import ConfigError


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
        try:
            _write_secret(home.service_file, (service or Key.generate()).secret_hex())
            _write_secret(home.dht_file, (dht_seed or secrets.token_bytes(32)).hex())
        except FileExistsError as error:
            raise ConfigError(f"{error.filename} exists: keys are never overwritten; choose another folder") from None
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
    def ready_file(self) -> Path:
        """What a running node writes once it serves."""
        return self.path / "ready.json"

    def service_key(self) -> Key:
        """Read the service key."""
        try:
            return Key.from_hex(_read_secret(self.service_file))
        except ValueError as error:
            raise ConfigError(f"{self.service_file}: not a key in hex: {error}") from None

    def dht_seed(self) -> bytes:
        """Read the 32-byte seed of the DHT key."""
        try:
            seed = bytes.fromhex(_read_secret(self.dht_file))
        except ValueError:
            seed = b""
        if len(seed) != 32:
            raise ConfigError(f"{self.dht_file}: not 32 bytes in hex")
        return seed

    def mark_ready(self, facts: dict[str, object]) -> None:
        """Say that the node serves, for whoever started it."""
        part = self.ready_file.with_suffix(".part")
        part.write_text(json.dumps({"pid": os.getpid(), **facts}), encoding="utf-8")
        part.replace(self.ready_file)

    def clear_ready(self) -> None:
        """Take that word back."""
        self.ready_file.unlink(missing_ok=True)
