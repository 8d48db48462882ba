"""Hold what ships to what forge compiles: one compiler, one set of settings, the same bytecode."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ROOT / "sdk" / "plait" / "protocol" / "abi"
PINNED = json.loads((ROOT / "contracts" / "solc.json").read_text("utf-8"))
NAMES = sorted(path.stem for path in SHIPPED.glob("*.json"))


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8"))


@pytest.fixture(scope="module")
def forged() -> Path:
    search = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    forge = shutil.which("forge", path=search)
    assert forge, "forge is missing: run `make setup`"
    # Into the usual folder: what `forge test` compiled already is not compiled again.
    done = subprocess.run([forge, "build"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    return ROOT / "build" / "contracts"


@pytest.mark.parametrize("name", NAMES)
def test_bytecode_shipped_equals_forges(name: str, forged: Path) -> None:
    shipped = read(SHIPPED / f"{name}.json")
    built = read(forged / f"{name}.sol" / f"{name}.json")

    assert shipped["bytecode"] == built["bytecode"]["object"], "run `make gen`, or align foundry.toml with solc.json"
    by_name = {json.dumps(entry, sort_keys=True) for entry in shipped["abi"]}
    assert by_name == {json.dumps(entry, sort_keys=True) for entry in built["abi"]}


def test_names_shipped_are_those_that_deploy() -> None:
    deployed = ["Channels", "ModelRegistry", "NodeRegistry", "Reputation", "Requests", "TestToken"]
    assert sorted([*deployed, "AgentExport", "AnswerKeeper", "ReceiptCheck"]) == NAMES


def test_forge_settings_agree_with_the_pinned_file() -> None:
    forge = tomllib.loads((ROOT / "foundry.toml").read_text("utf-8"))["profile"]["default"]
    settings = PINNED["settings"]

    assert forge["via_ir"] == settings["viaIR"]
    assert forge["optimizer"] == settings["optimizer"]["enabled"]
    assert forge["optimizer_runs"] == settings["optimizer"]["runs"]
    assert forge["evm_version"] == settings["evmVersion"]
    assert forge["bytecode_hash"] == settings["metadata"]["bytecodeHash"]
    assert forge["cbor_metadata"] == settings["metadata"]["appendCBOR"]
    assert forge["remappings"] == settings["remappings"]


def test_compiler_pinned_is_what_npm_installs_and_contracts_name() -> None:
    version = PINNED["version"]
    npm = read(ROOT / "package.json")["devDependencies"]
    sources = [path.read_text("utf-8") for path in (ROOT / "contracts").rglob("*.sol")]
    contracts = [source for source in sources if re.search(r"^contract ", source, re.MULTILINE)]

    assert npm["solc"] == version
    assert len(contracts) == len(NAMES)
    assert all(f"pragma solidity {version};" in source for source in contracts)


def test_bytecode_shipped_fits_a_contract_and_carries_no_metadata() -> None:
    for name in NAMES:
        code = read(SHIPPED / f"{name}.json")["bytecode"]
        assert len(code) // 2 - 1 <= 24_576, f"{name} is larger than a contract may be"
        assert "a264697066735822" not in code, f"{name} carries a metadata hash"
