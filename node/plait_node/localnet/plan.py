"""Who takes part in a local network: five operators, six processes, and their files."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from plait.protocol.ids import to_hex
from plait.protocol.typed import Key

MODEL = "smollm2-135m"
DECIMALS = 10**6
STAKE = 1_000 * DECIMALS
HOP_DEPOSIT = 100 * DECIMALS
PAYER_FUNDS = 1_000 * DECIMALS
INPUT_PRICE = 2 * DECIMALS
OUTPUT_PRICE = 8 * DECIMALS
STAGE_PRICE = 60_000
ROLE_BITS = {"gateway": 1, "worker": 2, "stage": 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """One owner on chain. The owner's key stays with the local network; a node never holds it."""

    name: str
    roles: int
    key: Key = field(default_factory=Key.generate)


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One node process: its operator, its role and, for a stage, its blocks `[first, last)`."""

    name: str
    operator: Operator
    role: str
    port: int
    dht_port: int
    first: int = 0
    last: int = 0
    service: Key = field(default_factory=Key.generate)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What every process of the network is told."""

    rpc: str
    deployment: Path
    broker: str
    models: Path
    model: str


def toml_of(process: Process, shared: Shared) -> str:
    """Return a node's configuration file."""
    text = json.dumps
    lines = [
        'home = "."',
        f"rpc = {text(shared.rpc)}",
        f"deployment = {text(str(shared.deployment))}",
        f"owner = {text(to_hex(process.operator.key.address))}",
        f"roles = [{text(process.role)}]",
        f"models = {text(str(shared.models))}",
    ]
    if process.role != "stage":
        lines.append(f"broker = {text(shared.broker)}")
    lines += ["", "[dht]", f'listen = "127.0.0.1:{process.dht_port}"', "", f"[{process.role}]"]
    match process.role:
        case "stage":
            lines += [
                f"model = {text(shared.model)}",
                f"first = {process.first}",
                f"last = {process.last}",
                f'listen = "127.0.0.1:{process.port}"',
                f"price = {STAGE_PRICE}",
            ]
        case "worker":
            lines += [
                f"model = {text(shared.model)}",
                f"input_price = {INPUT_PRICE}",
                f"output_price = {OUTPUT_PRICE}",
            ]
        case _:
            lines.append(f'listen = "127.0.0.1:{process.port}"')
    return "\n".join(lines) + "\n"
