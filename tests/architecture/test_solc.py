"""tools/solc answers as the native compiler does where forge and py-solc-x look."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import solcx
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
SOLC = ROOT / "tools" / "solc"
PINNED = json.loads((ROOT / "package.json").read_text())["devDependencies"]["solc"]
HEAD = "// SPDX-License-Identifier: Apache-2.0\npragma solidity ^0.8.27;\n"


def compiled(folder: Path, *options: str, **settings: object) -> dict[str, Any]:
    """Compile A.sol of the folder, named by path as py-solc-x does, with the given command line."""
    wanted = {"*": {"*": ["evm.bytecode.object"]}}
    source = {"language": "Solidity", "sources": {"A.sol": {"urls": ["A.sol"]}}}
    source["settings"] = {"outputSelection": wanted, **settings}
    done = subprocess.run(
        [SOLC, "--standard-json", *options],
        check=True,
        cwd=folder,
        input=json.dumps(source),
        capture_output=True,
        text=True,
        timeout=200,
    )
    return json.loads(done.stdout)


def errors(output: dict[str, Any]) -> str:
    return "\n".join(each["message"] for each in output.get("errors", []) if each["severity"] == "error")


def test_solc_version_is_the_pinned_one_as_pysolcx_reads_it() -> None:
    assert solcx.wrapper.get_solc_version(SOLC) == Version(PINNED)


def test_solc_given_import_below_include_path_compiles(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "more").mkdir()
    (tmp_path / "base" / "A.sol").write_text(HEAD + 'import {B} from "B.sol";\ncontract A is B {}\n')
    (tmp_path / "more" / "B.sol").write_text(HEAD + "contract B { uint256 public x = 7; }\n")

    output = compiled(tmp_path / "base", "--base-path", ".", f"--include-path={tmp_path / 'more'}")

    assert errors(output) == ""
    assert output["contracts"]["A.sol"]["A"]["evm"]["bytecode"]["object"]


def test_solc_given_import_outside_allowed_paths_refuses_until_allowed(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "base" / "A.sol").write_text(HEAD + f'import {{B}} from "{outside}/B.sol";\ncontract A is B {{}}\n')
    (outside / "B.sol").write_text(HEAD + "contract B {}\n")

    refused = compiled(tmp_path / "base")
    allowed = compiled(tmp_path / "base", "--allow-paths", f"/nowhere,{outside}")

    assert "File outside of allowed directories." in errors(refused)
    assert errors(allowed) == ""


def test_solc_given_link_out_of_base_path_refuses(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "B.sol").write_text(HEAD + "contract B {}\n")
    (tmp_path / "base" / "A.sol").write_text(HEAD + 'import {B} from "./B.sol";\n')
    (tmp_path / "base" / "B.sol").symlink_to(tmp_path / "B.sol")

    assert "File outside of allowed directories." in errors(compiled(tmp_path / "base"))


def test_solc_given_unknown_option_says_so_as_native_does() -> None:
    done = subprocess.run([SOLC, "--combined-json", "abi"], check=False, capture_output=True, text=True, timeout=200)

    assert done.returncode == 1
    assert done.stderr.startswith("unrecognised option '--combined-json'")


def test_solc_given_output_larger_than_a_pipe_prints_all_of_it(tmp_path: Path) -> None:
    functions = "\n".join(
        f"function f{n}(uint256 a) external pure returns (uint256) {{ return a * {n}; }}" for n in range(200)
    )
    (tmp_path / "A.sol").write_text(HEAD + f"contract A {{ {functions} }}\n")

    output = compiled(tmp_path, outputSelection={"*": {"*": ["*"], "": ["ast"]}})

    assert len(json.dumps(output)) > 1 << 20
    assert len(output["contracts"]["A.sol"]["A"]["abi"]) == 200
