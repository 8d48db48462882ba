"""One stage in a process of its own: the node's stage role over a real engine, its links, books and guard.

Run by the bench: python -m bench.swarm.stage '{"number": 1, ...}'. What a chain would say comes from `parties`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from bench.swarm.child import answer_lines, to_the_end
from bench.swarm.engines import engine_of
from bench.swarm.parties import DOMAIN, Everyone, Funded, identity

from plait.ledger import DebtBook, Journal, PayeeBook, SigningGuard
from plait.protocol.ids import Hash, to_hex
from plait.protocol.manifest import FP32_STRICT, PROFILES
from plait.protocol.messages import Request
from plait_node.engine.residents import Engine
from plait_node.stage import StageConfig, StageRole
from plait_node.wire import Dialer, LinkServer

__all__ = ["PRICE", "StageSpec"]

PRICE: Final = 60_000  # base units per 1,000,000 steps x blocks


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSpec:
    """What a stage is told; `pass_s` and `rows_bytes` None leave the role's own."""

    number: int
    model: str
    first: int
    last: int
    folder: str
    threads: int = 1
    kv_steps: int = 16_384
    pass_s: float | None = None
    rows_bytes: int | None = None
    profile: str = FP32_STRICT.name
    host: str = "127.0.0.1"

    def told(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return asdict(self)


async def _open_request(_: Request, __: Hash) -> bool:
    """Tell that the chain knows the request: the bench's requests are paid out of a fee."""
    return True


def _role(spec: StageSpec, engine: Engine, journal: Journal, dialer: Dialer) -> StageRole:
    who = dialer.identity
    config = StageConfig(owner=who.owner, profile=PROFILES[spec.profile].profile_id, price=PRICE)
    if spec.pass_s is not None:
        config = replace(config, pass_s=spec.pass_s)
    if spec.rows_bytes is not None:
        config = replace(config, rows_bytes=spec.rows_bytes)
    return StageRole(
        config,
        engine,
        key=who.key,
        sign=partial(SigningGuard(journal, DOMAIN).sign, who.key),
        domain=DOMAIN,
        directory=Everyone(),
        channels=Funded(),
        payees=PayeeBook(journal, DOMAIN, who.owner),
        debts=DebtBook(journal, "worker"),
        dialer=dialer,
        on_chain=_open_request,
    )


def _load_of(role: StageRole) -> dict[str, float]:
    load = role.facts.load
    return {
        "at": time.monotonic(),
        "busy_s": load.pass_seconds.total,
        "passes": load.pass_seconds.count,
        "rows": load.pass_rows.total,
        "cpu_s": time.process_time(),
        "step_micros": role.facts.step_micros,
        "hop_micros": role.facts.hop_micros,
        "rows_bytes": role.facts.rows.used,
    }


async def serve(spec: StageSpec) -> None:
    """Serve until the parent goes."""
    engine = await asyncio.to_thread(
        engine_of, spec.model, spec.first, spec.last, threads=spec.threads, kv_steps=spec.kv_steps
    )
    who = identity(spec.number)
    with Journal(Path(spec.folder) / f"stage-{spec.number}.db") as journal:
        role = _role(spec, engine, journal, Dialer(identity=who, directory=Everyone()))
        server = LinkServer(who, Everyone(), role.serve)
        port = await server.start(spec.host)
        sweeping = asyncio.create_task(role.run())

        async def answer(_: str) -> dict[str, Any]:
            return _load_of(role)

        try:
            await answer_lines({"port": port, "certificate": to_hex(who.certificate.fingerprint)}, answer)
        finally:
            sweeping.cancel()
            await role.stop()
            await server.stop()


if __name__ == "__main__":
    to_the_end(serve(StageSpec(**json.loads(sys.argv[1]))))
