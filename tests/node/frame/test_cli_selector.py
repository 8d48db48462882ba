"""`plait node select` and `pin`: what is explained, and what is typed wrong, in one line."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from tests.node.selector.made_policy import HARDWARE
from tests.node.selector.made_rows import made_rows
from typer.testing import CliRunner, Result

from plait_node.cli import app
from plait_node.selector.artefact import save
from plait_node.selector.predictor import Predictor

MODEL = "smollm2-135m"


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("history")
    rows = made_rows(cells=20)
    rows.save(folder / "made.parquet")
    save(Predictor.fit(rows), folder / "predictor.plait")
    return folder


def node(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def select(history: Path, *words: str, task: str = "chat", hardware: str = "wan-2-stages") -> Result:
    asked = ["--history", str(history), "--task", task] if task else ["--history", str(history)]
    return node("select", "--model", MODEL, "--hardware", hardware, *asked, *words)


def refused(told: Result, *said: str) -> None:
    assert told.exit_code == 2, told.output
    assert told.stdout == ""
    lines = told.stderr.splitlines()
    assert len(lines) == 1, told.stderr
    assert all(each in lines[0] for each in said), lines[0]


def test_select_explains_by_bars_and_png_and_json(history: Path, tmp_path: Path) -> None:
    png = tmp_path / "bars.png"
    told = select(history, "--batch", "2", "--png", str(png))
    as_json = json.loads(select(history, "--batch", "2", "--json", "--profiles", "int8,int4").stdout)

    assert told.exit_code == 0, told.output
    assert "chat: 2 requests of" in told.stdout
    assert "chosen: " in told.stdout
    assert png.read_bytes().startswith(b"\x89PNG")
    assert as_json["chosen"] in {"int8", "int4", "int4-lookup-10"}
    assert as_json["task"]["batch"] == 2


def test_select_takes_a_prompt_and_a_file_of_hardware(history: Path, tmp_path: Path) -> None:
    prompt, facts = tmp_path / "prompt.txt", tmp_path / "facts.json"
    prompt.write_text("Say which of these is a fruit: apple, chair, pear. " * 8)
    facts.write_text(json.dumps(asdict(HARDWARE)))

    told = select(history, "--prompt-file", str(prompt), "--warm", "50", "--json", task="", hardware=str(facts))

    assert told.exit_code == 0, told.output
    task = json.loads(told.stdout)["task"]
    assert (task["kind"], task["warm_tokens"], task["answer_tokens"]) == ("", 48, 32)
    assert task["repetition"] > 0.5


def test_select_counts_what_a_home_barred(history: Path, tmp_path: Path) -> None:
    (tmp_path / "selector").mkdir()
    (tmp_path / "selector" / "barred.json").write_text('{"prompt-lookup": "wrong tokens"}')
    told = select(history, "--home", str(tmp_path))
    assert told.exit_code == 0, told.output
    assert "barred: wrong tokens" in told.stdout


def test_select_of_an_empty_history_says_that_it_only_reckons(tmp_path: Path) -> None:
    facts = tmp_path / "facts.json"
    facts.write_text(json.dumps(asdict(HARDWARE)))
    told = select(tmp_path, hardware=str(facts))
    assert told.exit_code == 0, told.output
    assert "the roofline: arithmetic, not learned" in told.stdout
    assert "> always-on" in told.stdout


def test_select_says_what_it_does_not_know(history: Path, tmp_path: Path) -> None:
    refused(select(history, task="juggle"), "'juggle' is no kind of task", "chat, code")
    refused(select(history, hardware="abacus"), "there is no hardware 'abacus'", "wan-2-stages", "this")
    refused(select(history, hardware="none.json"), "cannot read none.json")
    refused(select(history, "--profiles", "fp64"), "unknown profile fp64", "fp32-strict")
    refused(select(tmp_path / "none"), "no such folder")
    refused(select(history, "--model", "gpt-9"), "there is no model 'gpt-9'", MODEL, "--models")
    refused(select(history, "--model", "gpt-9", "--models", str(tmp_path)), "gpt-9")


def test_select_without_text_says_so(history: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text(" \n")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    refused(select(history, task=""), "say by a kind of task or by a file")
    refused(select(history, "--prompt-file", str(tmp_path / "empty")), "not by both")
    refused(select(history, "--prompt-file", str(tmp_path / "empty"), task=""), "holds no text")
    refused(select(history, "--prompt-file", str(tmp_path / "bytes"), task=""), "no UTF-8 text")
    refused(select(history, "--prompt-file", str(tmp_path / "none"), task=""), "cannot read")


def test_select_of_a_damaged_history_or_predictor_is_refused(history: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").write_text("none")
    refused(select(tmp_path), "cannot read", "rows.parquet")
    (tmp_path / "rows.parquet").write_bytes((history / "made.parquet").read_bytes())
    (tmp_path / "predictor.plait").write_text("none")
    refused(select(tmp_path), "predictor.plait is no predictor")


def test_select_without_matplotlib_says_how_to_install_it(history: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plait_node.cli_selector.find_spec", lambda _: None)
    refused(select(history, "--png", "bars.png"), "--png needs matplotlib", "pip install matplotlib")


def test_select_that_cannot_write_its_png_says_so(history: Path, tmp_path: Path) -> None:
    refused(select(history, "--png", str(tmp_path / "none" / "bars.png")), "bars.png")


def test_pin_is_set_shown_and_cleared(tmp_path: Path) -> None:
    home = ["--home", str(tmp_path)]
    pinned = node("pin", "prefix-cache+chunked-prefill", *home, "--chunk", "64")
    shown, as_json = node("status", *home), node("status", *home, "--json")
    cleared = node("pin", *home, "--clear")

    assert pinned.exit_code == 0, pinned.output
    assert pinned.stdout == "pinned prefix-cache+chunked-prefill (chunk 64)\n"
    assert "prefix-cache+chunked-prefill, chunk 64, by the operator" in shown.stdout
    assert json.loads(as_json.stdout)["pin"] == {"method": "prefix-cache+chunked-prefill", "amounts": {"chunk": 64}}
    assert cleared.stdout == "no pin: the selector chooses\n"
    assert "by the operator" not in node("status", *home).stdout


def test_pin_says_what_it_does_not_know(tmp_path: Path) -> None:
    home = ["--home", str(tmp_path)]
    refused(node("pin", "draft-model", *home), "no method of a job")
    refused(node("pin", "plain", *home, "--chunk", "64"), "chunk is an amount of chunked-prefill")
    refused(node("pin", *home), "give the methods to pin, or --clear")
    refused(node("pin", "plain", "--clear", *home), "not both")
    refused(node("pin", "plain", "--home", str(tmp_path / "none")), "no such folder")


def test_status_of_a_home_with_a_damaged_pin_says_that_nothing_is_pinned(tmp_path: Path) -> None:
    (tmp_path / "selector").mkdir()
    (tmp_path / "selector" / "pin.json").write_text("{")
    told = node("status", "--home", str(tmp_path))
    assert told.exit_code == 0, told.output
    assert "pinned      nothing: " in told.stdout
