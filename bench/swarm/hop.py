"""What a hop adds to a token's way: rows of 8 KiB over loopback, TLS, codec and row hashes included.

`hop_added_ms_p50` is one way from computed rows here to rows there that can be computed with: encode, hash, frame, TLS,
parse, check, hash. `stage_added_ms` is what one more stage role adds around an engine that computes nothing: the hop,
two changes of thread, the scheduler, and the commitment.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from contextlib import AsyncExitStack
from typing import Any, Final

import numpy as np
from bench.swarm.child import answer_lines, started, to_the_end
from bench.swarm.engines import COPYING
from bench.swarm.figure import Bar, Found, Part, Setting, interleaved
from bench.swarm.network import Swarm, swarm
from bench.swarm.parties import Everyone, identity, owner
from bench.swarm.texts import made_up
from numpy.typing import NDArray

from plait.protocol.ids import hash32, keccak, to_hex
from plait.protocol.pb import stage_pb2 as pb
from plait_node.commit import hash_rows
from plait_node.wire import Destination, Dialer, Link, LinkServer, decode_rows, encode_rows, row_bytes

__all__ = ["PART"]

_WIDTH: Final = 2_048  # 8 KiB a row
_CODEC: Final = "fp32"
_JOB: Final = keccak(b"hop")
_TRIPS: Final = 1_000
_TOKENS: Final = 256
_STAGES: Final = 3


def _sent(step: int, rows: NDArray[np.float32]) -> pb.Frame:
    """Return computed rows as a stage sends them, hashed."""
    data = encode_rows(rows, codec=_CODEC)
    hash_rows(step, data, width=row_bytes(_CODEC, _WIDTH))
    return pb.Frame(rows=pb.Rows(job=_JOB, step=step, count=len(rows), codec=_CODEC, data=data))


def _taken(frame: pb.Frame) -> NDArray[np.float32]:
    """Return rows as a stage computes with them, hashed."""
    came = frame.rows
    rows = decode_rows(came.data, codec=came.codec, count=came.count, width=_WIDTH, limit=0)
    hash_rows(came.step, came.data, width=row_bytes(_CODEC, _WIDTH))
    return rows.astype(np.float32, copy=False)


async def _echo(link: Link) -> None:
    async for frame in link.frames():
        await link.send(_sent(frame.rows.step, _taken(frame)))


async def _serve(number: int) -> None:
    who = identity(number)
    server = LinkServer(who, Everyone(), _echo)
    port = await server.start("127.0.0.1")
    try:
        await answer_lines({"port": port, "certificate": to_hex(who.certificate.fingerprint)}, _nothing)
    finally:
        await server.stop()


async def _nothing(_: str) -> dict[str, Any]:
    return {}


async def _one_way_s(link: Link) -> float:
    """Return the median seconds of a hop: half of a round trip of one row."""
    rows, halves = np.ones((1, _WIDTH), dtype=np.float32), list[float]()
    for step in range(_TRIPS):
        began = time.perf_counter()
        await link.send(_sent(step, rows))
        rows = _taken(await link.receive(deadline_s=5))
        halves.append((time.perf_counter() - began) / 2)
    return statistics.median(halves)


async def _step_s(over: Swarm, repeat: int) -> float:
    took = await over.worker.answer(made_up(8, seed=f"hop {repeat}", vocabulary=1_024), _TOKENS)
    await over.worker.settled()
    return took.step_s


async def measure(setting: Setting) -> Found:
    """Measure links and stage roles in turn."""
    async with AsyncExitStack() as stack:
        echo = await started("bench.swarm.hop", {"number": 1}, name="echo", logs=setting.folder)
        stack.push_async_callback(echo.stop)
        link = await Dialer(identity=identity(2), directory=Everyone()).dial(
            Destination(
                owner=owner(1),
                host="127.0.0.1",
                port=int(echo.facts["port"]),
                certificate=hash32(str(echo.facts["certificate"])),
            )
        )
        stack.push_async_callback(link.close)
        one = await stack.enter_async_context(swarm(setting.folder / "one", COPYING, (0, 8)))
        more = await stack.enter_async_context(swarm(setting.folder / "more", COPYING, (0, 3, 6, 8)))
        before = await more.loads()
        found = await interleaved(
            {
                "link": lambda _: _one_way_s(link),
                "one": lambda repeat: _step_s(one, repeat),
                "more": lambda repeat: _step_s(more, repeat),
            },
            repeats=setting.repeats,
        )
        used = [usage.told() for usage in await more.usage_since(before)]
    added = (found["more"].median - found["one"].median) / (_STAGES - 1)
    ratios = {"hop_added_ms_p50": 1e3 * found["link"].median, "stage_added_ms": 1e3 * added}
    details = {
        "row_bytes": row_bytes(_CODEC, _WIDTH),
        "seconds": {name: each.told() for name, each in found.items()},
        "stages_that_compute_nothing": used,
    }
    return Found(ratios=ratios, details=details)


PART: Final = Part(name="hop", bars={"hop_added_ms_p50": Bar(bound=0.5, at_most=True)}, measure=measure)

if __name__ == "__main__":
    to_the_end(_serve(int(json.loads(sys.argv[1])["number"])))
