"""`plait node`: what an operator types wrong is said in words."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from tests.node.stage.network import until
from typer.testing import CliRunner

from plait.protocol.typed import Key
from plait_node.app.base import background
from plait_node.app.metrics import NodeMetrics, gauge
from plait_node.cli import app
from plait_node.running import held

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


STATE = {
    "predictor": "ab" * 32,
    "missing": "",
    "observed": 12,
    "factor": 1.25,
    "drifted": False,
    "barred": {"int4": "wrong tokens"},
    "choices": [
        {
            "request": "0x01",
            "at": 0.0,
            "method": "plain",
            "predicted_s": 2.0,
            "reason": "plain: 9 prompt tokens over 1 stage",
            "took_s": None,
        }
    ],
}


def test_cli_status_of_a_local_home_shows_its_selector_without_asking_the_chain(tmp_path: Path) -> None:
    nothing = CliRunner().invoke(app, ["status", "--home", str(tmp_path)])
    (tmp_path / "selector").mkdir()
    (tmp_path / "selector" / "state.json").write_text(json.dumps(STATE))
    told = CliRunner().invoke(app, ["status", "--home", str(tmp_path)])
    as_json = CliRunner().invoke(app, ["status", "--home", str(tmp_path), "--json"])

    assert "no worker has chosen here yet" in nothing.stdout
    assert told.exit_code == 0, told.output
    assert "predictor abababababab, 12 jobs observed, jobs take 1.25 times what is predicted, no drift" in told.stdout
    assert "int4: wrong tokens" in told.stdout
    assert "2.00 s predicted, - taken; plain: 9 prompt tokens over 1 stage" in told.stdout
    assert json.loads(as_json.stdout) == {"process": None, "numbers": None, "selector": STATE, "pin": None}


async def test_cli_status_shows_the_numbers_of_a_node_that_runs_here(tmp_path: Path) -> None:
    metrics, file = NodeMetrics(), tmp_path / "metrics.prom"
    metrics.add(
        lambda: [
            gauge("plait_stage_open_jobs", "Jobs.", 2),
            gauge("plait_stage_free_steps", "Steps.", 4096),
            gauge("plait_stage_rows_bytes", "Rows.", 3 << 19),
            gauge("plait_stage_rows_limit_bytes", "Limit.", 256 << 20),
        ]
    )
    with held(tmp_path / "node.lock") as mark:
        mark.say("serving")
        async with background(metrics.run(file)):
            await until(file.exists)
            told = CliRunner().invoke(app, ["status", "--home", str(tmp_path)])
            as_json = CliRunner().invoke(app, ["status", "--home", str(tmp_path), "--json"])

    assert f"serving, process {os.getpid()}" in told.stdout
    assert "2 open, room for 4096 steps" in told.stdout
    assert "1.5 of 256 MiB reserved" in told.stdout
    assert {"name": "plait_stage_open_jobs", "value": 2.0} in json.loads(as_json.stdout)["numbers"]
    assert not file.exists()  # gone with the node


async def test_numbers_that_cannot_be_written_stop_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "no such folder" / "metrics.prom"
    async with background(NodeMetrics().run(file)):
        await until(lambda: "numbers not written" in caplog.text)


def test_cli_status_says_what_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "selector").mkdir()
    (tmp_path / "selector" / "state.json").write_text("{")

    assert "say whose status" in str(CliRunner().invoke(app, ["status"]).exception)
    assert "the chain is asked by --rpc" in str(CliRunner().invoke(app, ["status", "0x" + "11" * 20]).exception)
    assert "not readable" in str(CliRunner().invoke(app, ["status", "--home", str(tmp_path)]).exception)
