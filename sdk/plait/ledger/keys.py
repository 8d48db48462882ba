"""Key files: plain or encrypted, readable by their owner alone."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, cast

from eth_account import Account

from plait.ledger.errors import KeyFileError
from plait.protocol.errors import MalformedMessageError
from plait.protocol.typed import Key

_OTHERS = 0o077


def new_key_file(path: Path | str, password: str | None = None) -> Key:
    """Make a key and write it to a new file; raise `KeyFileError` when the file exists."""
    key = Key.generate()
    save_key(key, path, password)
    return key


def save_key(key: Key, path: Path | str, password: str | None = None) -> None:
    """Write a key to a new file with mode 0600, encrypted (Web3 secret storage) when a password is given."""
    path = Path(path)
    text = key.secret_hex()
    if password is not None:
        text = json.dumps(cast("Any", Account).encrypt(key.secret_hex(), password))
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise KeyFileError(path, "the file exists; a key is never overwritten, name another file") from error
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())


def load_key(path: Path | str, password: str | None = None) -> Key:
    """Read a key file; raise `KeyFileError` when it is missing, open to others, or not what it should be."""
    path = Path(path)
    try:
        mode = path.stat().st_mode
        text = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileError(path, f"the key file cannot be read ({error}); name the right file") from error
    if mode & _OTHERS:
        raise KeyFileError(path, "others may read this key; run chmod 600 on it, and change the key if they did")
    if text.startswith("{"):
        text = _decrypted(path, text, password)
    try:
        return Key.from_hex(text)
    except MalformedMessageError as error:
        raise KeyFileError(path, "this is no key file; it holds 64 hex digits or an encrypted key") from error


def _decrypted(path: Path, text: str, password: str | None) -> str:
    if password is None:
        raise KeyFileError(path, "the key is encrypted; give its password")
    try:
        return bytes(cast("Any", Account).decrypt(json.loads(text), password)).hex()
    except (ValueError, KeyError, TypeError) as error:
        raise KeyFileError(path, "the password is wrong or the file is damaged") from error
