"""Read chain_tests/vectors/*.json, and turn their JSON into messages."""

# ruff: noqa: ANN401 values of JSON have no common type
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from plait.protocol.messages import MESSAGES, Field, Message, layout

FOLDER = Path(__file__).resolve().parents[3] / "chain_tests" / "vectors"
KINDS = {kind.__name__: kind for kind in MESSAGES}


def load(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text())


def raw(text: str) -> bytes:
    assert text.startswith("0x")
    return bytes.fromhex(text[2:])


def message(kind: str, value: dict[str, Any]) -> Message:
    fields = layout(KINDS[kind])
    assert [field.wire_name for field in fields] == list(value)
    return KINDS[kind](**{field.name: read(field, value[field.wire_name]) for field in fields})


def read(field: Field, value: Any) -> Any:
    if field.is_list:
        return tuple(read_item(field, item) for item in value)
    return read_item(field, value)


def read_item(field: Field, value: Any) -> Any:
    if field.struct is not None:
        return message(field.solidity, value)
    if field.solidity == "bool":
        return value
    return int(value) if field.solidity.startswith("uint") else raw(value)
