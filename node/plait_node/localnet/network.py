"""A whole network on loopback: chain, contracts, model, stakes, channels, broker and six node processes."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from plait.chain import Deployment
from plait.protocol.typed import Key
from plait_node.broker import LocalServer
from plait_node.localnet import plan
from plait_node.localnet.anvil import Anvil
from plait_node.localnet.processes import Child, Children, free_port

_START_S = 120.0
Say = Callable[[str], None]


def _quiet(text: str) -> None:
    del text


def _operators() -> dict[str, plan.Operator]:
    bits = plan.ROLE_BITS
    owners = {"gate": bits["gateway"] | bits["worker"]}
    owners |= dict.fromkeys(("ash", "birch", "cedar", "spare"), bits["stage"])
    return {name: plan.Operator(name=name, roles=roles) for name, roles in owners.items()}


def _processes(operators: dict[str, plan.Operator]) -> tuple[plan.Process, ...]:
    def process(name: str, operator: str, role: str, first: int = 0, last: int = 0) -> plan.Process:
        return plan.Process(
            name=name,
            operator=operators[operator],
            role=role,
            port=free_port(),
            dht_port=free_port(socket.SOCK_DGRAM),
            first=first,
            last=last,
        )

    return (
        process("stage-ash", "ash", "stage", 0, 10),
        process("stage-birch", "birch", "stage", 10, 20),
        process("stage-cedar", "cedar", "stage", 20, 30),
        process("stage-spare", "spare", "stage", 10, 20),
        process("worker", "gate", "worker"),
        process("gateway", "gate", "gateway"),
    )


@dataclass(slots=True, kw_only=True)
class Network:
    """A running local network; leave the context and every process has ended."""

    home: Path
    spare: bool = True
    say: Say = _quiet
    payer: Key = field(default_factory=Key.generate)
    anvil: Anvil = field(init=False)
    broker: LocalServer = field(init=False)
    children: Children = field(init=False)
    deployment: Deployment = field(init=False)
    model: str = field(init=False, default="")
    processes: tuple[plan.Process, ...] = field(init=False, default=())
    running: dict[str, Child] = field(init=False, default_factory=dict)
