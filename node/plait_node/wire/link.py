"""A proven link: frames both ways, heartbeats, a clean end, and blame where it is due."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence

from plait.protocol.codec import fault_from_pb, fault_to_pb
from plait.protocol.errors import Fault
from plait.protocol.ids import Address
from plait.protocol.pb import stage_pb2 as pb
from plait_node.wire.deadline import SharedDeadline
from plait_node.wire.errors import LinkClosedError, MalformedFrameError, SendTimeoutError, WireError
from plait_node.wire.frames import BATCH_BYTES, BATCH_FRAMES, Joiner, frame_bytes, messages_of
from plait_node.wire.identity import Blame, OnBlame, Patience, log_blame
from plait_node.wire.queue import WeighedQueue
from plait_node.wire.transport import Transport


class Link:
    """One proven peer; symmetric: who dialed makes no difference."""

    def __init__(
        self,
        transport: Transport,
        *,
        peer: Address,
        version: int = 1,
        patience: Patience | None = None,
        on_blame: OnBlame = log_blame,
        on_signal: Callable[[Link, pb.Frame], None] | None = None,
    ) -> None:
        self.peer = peer
        self.version = version
        self.rtt_s: float | None = None  # of the last heartbeat
        self._transport = transport
        self._patience = patience or Patience()
        self._on_blame = on_blame
        self._on_signal = on_signal  # takes calls, which belong to links and not to roles; it must be quick
        self._outbox: WeighedQueue[bytes] = WeighedQueue(self._patience.outbox_bytes)
        self._inbox: WeighedQueue[pb.Frame] = WeighedQueue(self._patience.inbox_bytes)
        self._heard = False
        self._pinged: tuple[int, float] = (0, 0.0)
        self._reason: str | None = None
        self._closed = asyncio.Event()
        self._writing = SharedDeadline(self._patience.send_s, self._took_nothing)
        self._reader = asyncio.create_task(self._read(), name="link-read")
        self._writer = asyncio.create_task(self._write(), name="link-write")
        self._beat = asyncio.create_task(self._heartbeat(), name="link-heartbeat")
        self._ending: asyncio.Task[None] | None = None

    @property
    def closed(self) -> bool:
        """Tell whether the link has ended."""
        return self._reason is not None

    @property
    def reason(self) -> str:
        """Return why the link ended, an empty text while it lives."""
        return self._reason or ""

    async def send(self, frame: pb.Frame, *, deadline_s: float | None = None) -> None:
        """Queue a frame; wait while the queue is full.

        Raises `LinkClosedError`, `FrameTooLargeError`, or `SendTimeoutError` (the link is closed then).
        """
        self._must_be_open()
        data = frame_bytes(frame)
        if not self._outbox.put(data, len(data)):
            await self._wait_to_send(data, self._patience.send_s if deadline_s is None else deadline_s)

    def offer(self, frame: pb.Frame) -> bool:
        """Queue a frame if there is room for it now; tell whether there was."""
        data = frame_bytes(frame)
        return self._reason is None and self._outbox.put(data, len(data))

    async def _wait_to_send(self, data: bytes, deadline_s: float) -> None:
        try:
            async with asyncio.timeout(deadline_s):
                while not self._outbox.put(data, len(data)):
                    await self._outbox.room()
                    self._must_be_open()
        except TimeoutError as error:
            self._end(f"took nothing for {deadline_s} s", lost=True, blamed=True)
            raise SendTimeoutError(self.peer, self.reason) from error

    async def receive(self, *, deadline_s: float) -> pb.Frame:
        """Return the next frame; raise `LinkClosedError`, or `TimeoutError` after the deadline."""
        async with asyncio.timeout(deadline_s):
            frame = await self._inbox.get()
        if frame is None:
            raise LinkClosedError(self.peer, self.reason)
        return frame

    async def frames(self) -> AsyncIterator[pb.Frame]:
        """Yield frames in order until the link ends; whoever iterates must be quick: one consumer a link."""
        while (frame := await self._inbox.get()) is not None:
            yield frame

    async def close(self, reason: str = "closed") -> None:
        """Say goodbye, flush what is queued, free everything; safe to call twice."""
        self._end(reason, fault=Fault(code="closed", text=reason))
        await self.wait_closed()

    async def accuse(self, reason: str) -> None:
        """Close the link because of what the peer sent, tell it so, and blame it."""
        self._end(reason, fault=Fault(code="malformed", text=reason), blamed=True)
        await self.wait_closed()

    def lose(self, reason: str) -> None:
        """End the link because its stream is gone; the peer is blamed for that, unless the link had ended before."""
        self._end(reason, lost=True, blamed=True)

    async def wait_closed(self) -> None:
        """Return once the link has ended and is freed."""
        await self._closed.wait()

    def _must_be_open(self) -> None:
        if self._reason is not None:
            raise LinkClosedError(self.peer, self._reason)

    async def _read(self) -> None:
        joiner = Joiner()
        try:
            while (data := await self._transport.read()) is not None:
                self._heard = True
                await self._take(joiner.take(data))
            self._end("the peer ended the stream without a goodbye", lost=True, blamed=True)
        except MalformedFrameError as error:
            self._end(error.text, fault=error.fault(), blamed=True)
        except WireError as error:
            self._end(error.text, lost=True, blamed=True)

    async def _take(self, frames: Sequence[tuple[pb.Frame, int]]) -> None:
        for frame, size in frames:
            if self._handle(frame):
                await self._deliver(frame, size)

    async def _deliver(self, frame: pb.Frame, size: int) -> None:
        # While our own consumer is slow nothing is read: the stream's flow control then slows the peer.
        while self._reason is None and not self._inbox.put(frame, size):
            await self._inbox.room()

    def _handle(self, frame: pb.Frame) -> bool:
        """Deal with what belongs to the link itself; tell whether the frame is for the roles."""
        match frame.WhichOneof("body"):
            case "ping":
                # A flood of pings finds the outbox full and gets no answers.
                pong = pb.Frame(pong=frame.ping).SerializeToString()
                self._outbox.put(pong, len(pong))
            case "pong":
                number, sent = self._pinged
                if frame.pong.number == number:
                    self.rtt_s = asyncio.get_running_loop().time() - sent
            case "knock" | "knocked" as kind:
                if self._on_signal is None:
                    raise MalformedFrameError(f"a {kind} at a node that takes none")
                self._on_signal(self, frame)
            case "nonce" | "hello" as kind:
                raise MalformedFrameError(f"a {kind} after the handshake")
            case "fault" if not frame.fault.job:
                said = fault_from_pb(frame.fault.fault)
                self._end(f"the peer closed the link: {said.text} ({said.code})")
            case _:
                return True
        return False

    async def _write(self) -> None:
        try:
            while (data := await self._outbox.get()) is not None:
                for message in messages_of(self._together(data)):
                    self._writing.begin()
                    await self._transport.write(message)
                    self._writing.end()
        except WireError as error:
            self._end(error.text, lost=True, blamed=True)
        finally:
            self._writing.stop()

    def _took_nothing(self) -> None:
        self._end(f"took nothing for {self._patience.send_s} s", lost=True, blamed=True)
        self._writer.cancel()

    def _together(self, first: bytes) -> list[bytes]:
        """Return a frame, together with those that wait behind it: what a message costs is paid once for all."""
        frames, room = [first], BATCH_BYTES - len(first)
        while len(frames) < BATCH_FRAMES and (data := self._outbox.take(room)) is not None:
            frames.append(data)
            room -= len(data)
        return frames

    async def _heartbeat(self) -> None:
        # Missed beats are counted, not seconds: when this process itself is stalled, its beats are late as well.
        loop = asyncio.get_running_loop()
        missed = number = 0
        while missed < self._patience.missed_heartbeats:
            number += 1
            self._pinged = (number, loop.time())
            self._heard = False
            ping = pb.Frame(ping=pb.Ping(number=number)).SerializeToString()
            self._outbox.put(ping, len(ping))
            await asyncio.sleep(self._patience.heartbeat_s)
            missed = 0 if self._heard else missed + 1
        self._end(f"silent for {missed} heartbeats", lost=True, blamed=True)

    def _end(self, reason: str, *, fault: Fault | None = None, blamed: bool = False, lost: bool = False) -> None:
        """Start the end once; later reasons are consequences of the first."""
        if self._reason is not None:
            return
        self._reason = reason
        if blamed:
            self._on_blame(Blame(owner=self.peer, where=self._transport.where, reason=reason, lost=lost))
        if fault is not None:
            goodbye = pb.Frame(fault=pb.JobFault(fault=fault_to_pb(fault))).SerializeToString()
            self._outbox.force(goodbye, len(goodbye))
        self._outbox.end()
        self._inbox.end()
        self._ending = asyncio.create_task(self._finish(), name="link-end")

    async def _finish(self) -> None:
        self._beat.cancel()
        try:
            with contextlib.suppress(TimeoutError, WireError):
                async with asyncio.timeout(self._patience.close_s):
                    await asyncio.wait([self._writer])
                    await self._transport.finish()
                    await asyncio.wait([self._reader])
        finally:
            await self._transport.abort()
            self._reader.cancel()
            self._writer.cancel()
            await asyncio.gather(self._reader, self._writer, self._beat, return_exceptions=True)
            self._closed.set()
