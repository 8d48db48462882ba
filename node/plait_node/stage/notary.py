"""Sign one job's windows: rows in and out become hashes, hashes and the upstream leaf become a leaf of our own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from plait.protocol.checks import check_signer
from plait.protocol.codec import signed_to_pb
from plait.protocol.ids import Hash
from plait.protocol.messages import Leaf
from plait.protocol.pb import stage_pb2 as pb
from plait.protocol.typed import Signed
from plait.protocol.windows import WINDOW_STEPS
from plait_node.commit import RowHashes, StageCommitter
from plait_node.stage.admission import Admitted
from plait_node.stage.prefix import CachedWindow
from plait_node.stage.surroundings import Surroundings
from plait_node.wire import Link, MalformedFrameError

__all__ = ["Notary"]

# What waits to be worked on: hashes of rows in and out, an upstream leaf, nothing but a window to sign, the end.
_Note = tuple[RowHashes, RowHashes] | Signed[Leaf] | tuple[()] | int
_LOOK: tuple[()] = ()


class Notary:
    """Works until every window of the job is signed."""

    def __init__(
        self,
        around: Surroundings,
        admitted: Admitted,
        committer: StageCommitter,
        *,
        worker: Link,
        downstream: Link | None,
        session: Hash,
        rows: Callable[[int, int], bytes | None],
    ) -> None:
        """Begin before the first row; `rows` returns those given out in some steps, as far as they are kept."""
        self._around = around
        self._admitted = admitted
        self._committer = committer
        self._worker, self._downstream, self._upstream = worker, downstream, admitted.upstream
        self._session, self._rows = session, rows
        self._leaves = 0
        self._notes: asyncio.Queue[_Note] = asyncio.Queue()
        self._idle = False  # nothing is worked on: a row is noted at once, and signing begins where a window is due

    @property
    def steps(self) -> int:
        """Return how many steps are signed."""
        return self._committer.steps

    @property
    def signed_to(self) -> int:
        """Return the first step that is not signed."""
        return self._admitted.cut.row + self._committer.steps

    def begin(self, cached: Sequence[CachedWindow]) -> None:
        """Begin with windows that are cached."""
        if cached:
            self._committer.reuse([window.roots for window in cached])
            self._notes.put_nowait(_LOOK)

    def rows(self, hashes: tuple[RowHashes, RowHashes]) -> None:
        """Take the hashes of rows in and out; raise `RowOrderError` if they are not the next ones."""
        if not self._idle or not self._notes.empty():
            self._notes.put_nowait(hashes)
            return
        self._add(hashes)
        if self._committer.due:
            self._notes.put_nowait(_LOOK)

    def leaf(self, signed: Signed[Leaf]) -> None:
        """Take a leaf of the stage before; raise `MalformedFrameError` for more than there are windows."""
        self._leaves += 1
        if self._leaves > self._admitted.room // WINDOW_STEPS + 2:
            raise MalformedFrameError("more leaves came than the job has windows")
        self._notes.put_nowait(signed)

    def end(self, step: int) -> None:
        """Say that no row at or after `step` belongs to the job."""
        self._notes.put_nowait(step)

    async def run(self) -> None:
        """Sign until the last window, then keep the prompt's windows for jobs to come."""
        while not self._committer.complete:
            note = await self._next()
            if isinstance(note, int):
                self._committer.finish(note)
            elif isinstance(note, Signed):
                await self._add_leaf(note)
            elif note:
                self._add(note)
            await self._sign()
        windows = self._admitted.codecs.cacheable(self._admitted.cut.prompt_end) // WINDOW_STEPS
        if kept := self._committer.kept[:windows]:
            keys = self._around.prefixes.keep(self._admitted.call.request.payer, kept)
            held = await self._around.scheduler.keep_prefix(self._session, keys)
            self._around.prefixes.keep_rows(keys[:held], self._rows)

    async def _next(self) -> _Note:
        self._idle = True
        try:
            return await self._notes.get()
        finally:
            self._idle = False

    def _add(self, hashes: tuple[RowHashes, RowHashes]) -> None:
        self._committer.add_input(hashes[0])
        self._committer.add_output(hashes[1])

    async def _add_leaf(self, leaf: Signed[Leaf]) -> None:
        await check_signer(
            self._around.domain,
            self._around.directory,
            leaf,
            owner=self._upstream,
            request=self._admitted.call.request,
            check="leaf",
        )
        self._committer.add_upstream(leaf)

    async def _sign(self) -> None:
        while (leaf := self._committer.sign_next()) is not None:
            frame = pb.Frame(leaf=pb.LeafOf(leaf=signed_to_pb(leaf)))
            await self._worker.send(frame)
            if self._downstream is not None:
                await self._downstream.send(frame)
            await asyncio.sleep(0)  # a long prompt has many windows; other jobs' rows pass in between
