#!/usr/bin/env python3
"""Compile contracts/ with the settings of contracts/solc.json; write ABI and bytecode into the SDK.

`--check` writes nothing and fails when a committed file differs from what contracts/ gives. The output depends only on
contracts/, on the pinned compiler and on the pinned OpenZeppelin.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import solcx
from solcx.exceptions import SolcError
from solcx.wrapper import get_solc_version

ROOT = Path(__file__).resolve().parent.parent
CONTRACTS = ROOT / "contracts"
SETTINGS = CONTRACTS / "solc.json"
SOLC = ROOT / "tools" / "solc"
OUTPUT = ROOT / "sdk" / "plait" / "protocol" / "abi"
DOCSTRING = '"""ABI and bytecode of each contract as JSON, written by `make gen`; edits here are overwritten."""\n'


class GenerationError(Exception):
    """Say which contract the compiler refused, or which output is stale."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the generated files, or with --check compare them; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a committed file is stale")
    options = parser.parse_args(arguments)
    try:
        outputs = generate()
        stale = sorted(stale_files(outputs))
        if options.check and stale:
            names = ", ".join(str(path.relative_to(ROOT)) for path in stale)
            raise GenerationError(f"stale generated files: {names}; run `make gen` and commit them")
    except GenerationError as error:
        print(f"gen_contracts: {error}", file=sys.stderr)
        return 1
    if not options.check:
        write(outputs, stale)
    print(f"gen_contracts: {len(outputs)} files, {len(stale)} changed")
    return 0


def generate() -> dict[Path, str]:
    """Return every generated file's text, by where it belongs."""
    outputs = {OUTPUT / "__init__.py": DOCSTRING}
    for name, contract in sorted(deployable(compile_contracts()).items()):
        shipped = {"contract": name, "abi": contract["abi"], "bytecode": "0x" + contract["evm"]["bytecode"]["object"]}
        outputs[OUTPUT / f"{name}.json"] = json.dumps(shipped, indent=1, ensure_ascii=False) + "\n"
    return outputs


def compile_contracts() -> Mapping[str, Mapping[str, Any]]:
    """Return what the compiler gives, by source file and contract."""
    pinned = json.loads(SETTINGS.read_text("utf-8"))
    check_version(pinned["version"])
    sources = {str(path.relative_to(ROOT)): path.read_text("utf-8") for path in sorted(CONTRACTS.rglob("*.sol"))}
    if not sources:
        raise GenerationError("contracts/ holds no *.sol file")
    wanted = {"*": {"*": ["abi", "evm.bytecode.object"]}}
    question = {
        "language": "Solidity",
        "sources": {name: {"content": text} for name, text in sources.items()},
        "settings": {**pinned["settings"], "outputSelection": wanted},
    }
    try:
        answer = cast(
            "dict[str, Any]",
            solcx.compile_standard(question, base_path=ROOT, solc_binary=SOLC),  # pyright: ignore[reportUnknownMemberType] - solcx is not fully typed
        )
    except SolcError as error:
        raise GenerationError(str(error.message)) from error
    return cast("Mapping[str, Mapping[str, Any]]", answer["contracts"])


def check_version(pinned: str) -> None:
    """Raise `GenerationError` when the installed compiler is not the pinned one."""
    found = str(get_solc_version(SOLC))
    if found != pinned:
        raise GenerationError(f"contracts/solc.json pins solc {pinned}, tools/solc is {found}; run `make setup`")


def deployable(compiled: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the contracts of ours that have code of their own; libraries are inlined and interfaces have none."""
    return {
        name: contract
        for source, contracts in compiled.items()
        if source.startswith("contracts/") and not source.startswith("contracts/libraries/")
        for name, contract in contracts.items()
        if contract["evm"]["bytecode"]["object"]
    }


def stale_files(outputs: Mapping[Path, str]) -> Iterator[Path]:
    """Yield files to write and files that nothing generates any more."""
    for path, text in outputs.items():
        if not path.is_file() or path.read_text("utf-8") != text:
            yield path
    for path in OUTPUT.glob("*.*"):
        if path not in outputs:
            yield path


def write(outputs: Mapping[Path, str], stale: Sequence[Path]) -> None:
    """Write stale files and remove those that nothing generates."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    for path in stale:
        if path in outputs:
            path.write_text(outputs[path], "utf-8")
        else:
            path.unlink()


if __name__ == "__main__":
    raise SystemExit(main())
