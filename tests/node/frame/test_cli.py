"""`plait node`: what an operator types wrong is said in words."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from plait.protocol.typed import Key
from plait_node.cli import app

STAKE = ["--endpoint", "dht://127.0.0.1:1", "--amount", "1", "--rpc", "http://127.0.0.1:9", "--deployment", "d.json"]


def test_cli_init_makes_keys_and_a_second_time_refuses(tmp_path: Path) -> None:
    home = tmp_path / "node"

    first = CliRunner().invoke(app, ["init", str(home)])
    second = CliRunner().invoke(app, ["init", str(home)])

    assert first.exit_code == 0
    assert "service key 0x" in first.stdout
    assert second.exit_code != 0
    assert "exists" in str(second.exception)


def test_cli_stake_dry_run_sends_nothing(tmp_path: Path) -> None:
    home, owner = tmp_path / "node", tmp_path / "owner.key"
    CliRunner().invoke(app, ["init", str(home)])
    key = Key.generate()
    owner.write_text(key.secret_hex())

    told = CliRunner().invoke(
        app, ["stake", str(home), "--roles", "stage", "--owner-key-file", str(owner), "--dry-run", *STAKE]
    )

    assert told.exit_code == 0, told.output
    assert f"owner 0x{key.address.hex()}" in told.stdout


def test_cli_stake_unknown_role_is_named(tmp_path: Path) -> None:
    home, owner = tmp_path / "node", tmp_path / "owner.key"
    CliRunner().invoke(app, ["init", str(home)])
    owner.write_text(Key.generate().secret_hex())

    told = CliRunner().invoke(app, ["stake", str(home), "--roles", "cook", "--owner-key-file", str(owner), *STAKE])

    assert told.exit_code != 0
    assert "unknown role cook" in str(told.exception)


def test_cli_run_without_a_file_says_so(tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["run", "--config", str(tmp_path / "none.toml")])

    assert told.exit_code != 0
    assert "no such file" in str(told.exception)
