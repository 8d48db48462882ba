"""Key files: private, never overwritten, clear when wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from eth_account import Account

from plait.ledger import KeyFileError, load_key, new_key_file, save_key
from plait.protocol.typed import Key


def test_key_file_round_trip_is_private(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "service.key"

    made = new_key_file(path)

    assert load_key(path).address == made.address
    assert path.stat().st_mode & 0o777 == 0o600


def test_key_file_that_exists_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "service.key"
    made = new_key_file(path)

    with pytest.raises(KeyFileError, match="never overwritten"):
        save_key(Key.generate(), path)
    assert load_key(path).address == made.address


def test_key_file_open_to_others_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "service.key"
    new_key_file(path)
    path.chmod(0o640)

    with pytest.raises(KeyFileError, match="chmod 600"):
        load_key(path)


def test_key_file_encrypted_opens_with_its_password_only(tmp_path: Path) -> None:
    path = tmp_path / "service.key"
    key = Key.generate()
    path.write_text(json.dumps(Account.encrypt(key.secret_hex(), "right", kdf="pbkdf2", iterations=2)))
    path.chmod(0o600)

    assert load_key(path, "right").address == key.address
    with pytest.raises(KeyFileError, match="password is wrong"):
        load_key(path, "wrong")
    with pytest.raises(KeyFileError, match="give its password"):
        load_key(path)


def test_key_file_saved_with_a_password_hides_the_key(tmp_path: Path) -> None:
    path = tmp_path / "service.key"
    key = Key.generate()
    save_key(key, path, "secret")

    assert key.secret_hex()[2:] not in path.read_text()
    assert json.loads(path.read_text())["crypto"]["kdf"] == "scrypt"
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["", "0x12", "zz" * 32, "{not json"])
def test_key_file_with_something_else_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "service.key"
    path.write_text(text)
    path.chmod(0o600)

    with pytest.raises(KeyFileError):
        load_key(path, "password")


def test_key_file_missing_says_so(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="name the right file"):
        load_key(tmp_path / "nowhere.key")
