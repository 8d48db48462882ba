"""Engines in processes of their own, joined by the node's wire: gRPC, TLS with pinned certificates, proven keys.

No payments, leaves or planning: what one hop costs, and nothing else. Rows of one stream, one frame a step.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Self

import numpy as np
from bench.swarm.parties import Everyone, identity, owner

from plait.protocol.ids import Hash, keccak
from plait.protocol.pb import stage_pb2 as pb
from plait_node.engine import StageEngine
from plait_node.wire import Destination, Dialer, Link, LinkServer, decode_rows, encode_rows

JOB = keccak(b"job")
_START_S = 240.0
_Place = tuple[int, int, Hash]  # number of the stage, its port, its certificate's fingerprint


class WireRoute:
    """Stages in processes, and the driver's links to the first and the last; a context manager."""

    def __init__(self, make: Callable[[int, int], StageEngine], cuts: Sequence[int], *, room: int) -> None:
        """Start a process a range; `make(first, last)` runs in it and must be a module's function."""
        context = multiprocessing.get_context("spawn")
        self._processes: list[Any] = []
        self._pipes: list[Connection] = []
        for number in range(len(cuts) - 1):
            here, there = context.Pipe()
            spec = _Spec(make=make, first=cuts[number], last=cuts[number + 1], number=number, room=room)
            process = context.Process(target=_run, args=(spec, there), daemon=True)
            process.start()
            self._processes.append(process)
            self._pipes.append(here)

    def __enter__(self) -> Self:
        places: list[_Place] = [_waited(pipe).recv() for pipe in self._pipes]
        for number, pipe in enumerate(self._pipes):
            pipe.send(places[number + 1] if number + 1 < len(places) else None)
        for pipe in self._pipes:
            _waited(pipe).recv()
        self._places = places
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join()

    def decode(self, prompt: Sequence[int], count: int) -> tuple[list[int], list[float]]:
        """Return the greedy answer and the seconds of each token after the first."""
        return asyncio.run(self._decode(prompt, count))

    async def _decode(self, prompt: Sequence[int], count: int) -> tuple[list[int], list[float]]:
        number = len(self._places)
        dialer = Dialer(identity=identity(number), directory=Everyone())
        first = await dialer.dial(_destination(self._places[0]))
        last = first if number == 1 else await dialer.dial(_destination(self._places[-1]))
        # The tail answers the last link that dialed it after its neighbour: the driver's.
        await last.send(pb.Frame(start=pb.Start(job=JOB, row=0)))
        ids, gaps = list(prompt), list[float]()
        rows, at = np.array(prompt), 0
        while len(ids) < len(prompt) + count:
            began = time.perf_counter()
            data = encode_rows(rows, codec="ids")
            await first.send(pb.Frame(rows=pb.Rows(job=JOB, step=at, count=len(rows), codec="ids", data=data)))
            frame = await last.receive(deadline_s=60)
            gaps.append(time.perf_counter() - began)
            at += len(rows)
            ids.append(frame.tokens.ids[0])
            rows = np.array(ids[-1:])
        await asyncio.gather(*(link.close("done") for link in {first, last}))
        return ids[len(prompt) :], gaps[1:]


def _waited(pipe: Connection) -> Connection:
    if not pipe.poll(_START_S):
        raise TimeoutError(f"a stage was not ready after {_START_S:g} s")
    return pipe


@dataclass(frozen=True, slots=True, kw_only=True)
class _Spec:
    make: Callable[[int, int], StageEngine]
    first: int
    last: int
    number: int
    room: int


def _destination(place: _Place) -> Destination:
    number, port, pin = place
    return Destination(owner=owner(number), host="127.0.0.1", port=port, certificate=pin)


def _run(spec: _Spec, pipe: Connection) -> None:
    asyncio.run(_serve(spec, pipe))


async def _serve(spec: _Spec, pipe: Connection) -> None:
    engine = spec.make(spec.first, spec.last)
    who, directory = identity(spec.number), Everyone()
    stage = _Stage(engine, spec.room)
    server = LinkServer(who, directory, stage.serve)
    port = await server.start("127.0.0.1")
    pipe.send((spec.number, port, who.certificate.fingerprint))
    following = await asyncio.to_thread(pipe.recv)
    if following is not None:
        stage.onward = await Dialer(identity=who, directory=directory).dial(_destination(following))
    pipe.send("ready")
    await asyncio.Event().wait()


class _Stage:
    def __init__(self, engine: StageEngine, room: int) -> None:
        self.onward: Link | None = None
        self._engine = engine
        self._room = room
        self._worker: Link | None = None
        self._thread = ThreadPoolExecutor(1)

    async def serve(self, link: Link) -> None:
        async for frame in link.frames():
            if frame.HasField("start"):
                self._worker = link
            elif frame.HasField("rows"):
                reply = await asyncio.get_running_loop().run_in_executor(self._thread, self._step, frame.rows)
                to = self.onward or self._worker or link
                await to.send(reply)

    def _step(self, came: pb.Rows) -> pb.Frame:
        engine, manifest = self._engine, self._engine.manifest
        if came.step == 0:
            engine.close(JOB)
            engine.open(JOB, self._room)
        rows = decode_rows(
            came.data, codec=came.codec, count=came.count, width=manifest.hidden, limit=manifest.vocabulary
        )
        if engine.last == manifest.blocks:
            best = engine.step_one(JOB, came.step, rows, best=True).best
            if best is None:
                raise TypeError("the last range draws a token of every frame")
            return pb.Frame(tokens=pb.Tokens(job=JOB, step=came.step + came.count - 1, ids=[int(best[0])]))
        out = engine.step_one(JOB, came.step, rows, logits=0)
        data = encode_rows(out.rows, codec="fp32")
        return pb.Frame(rows=pb.Rows(job=JOB, step=came.step, count=came.count, codec="fp32", data=data))
