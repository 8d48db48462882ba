"""What comes for one job: rows and drafts, checked for their form, given out in the order they came."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, replace

from plait.protocol.ids import Hash
from plait.protocol.pb import stage_pb2 as pb
from plait_node.stage.admission import Admitted
from plait_node.stage.compute import Draw, StepWork
from plait_node.stage.errors import SpeculationError
from plait_node.stage.speculation import MOST_GUESSED, MOST_SPECULATIVE
from plait_node.stage.surroundings import Surroundings
from plait_node.wire import Link, MalformedFrameError, TensorError

__all__ = ["Arrivals", "Came"]

_DRAFT_S = 5.0  # how long rows wait for the ids that were guessed for them, seconds
_MOST_DRAFTS = 8  # that wait for their rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Came:
    """A frame of rows, when it came, and over which link."""

    work: StepWork
    at: float
    source: Link


class Arrivals:
    """Rows and drafts of one job on one stage."""

    def __init__(self, around: Surroundings, admitted: Admitted, *, session: Hash) -> None:
        self._around = around
        self._admitted = admitted
        self._session = session
        self._queued = 0  # rows that came and are not looked at yet
        self.end_step = 0  # the first step that did not come
        self.in_hand = 0  # frames that came and are not done
        self._rows: asyncio.Queue[Came | None] = asyncio.Queue()
        self._drafts: deque[tuple[int, tuple[int, ...]]] = deque()  # of each the first one's step, and the ids
        self._draft_came = asyncio.Event()

    def rows(self, received: pb.Rows, *, source: Link, now: float) -> None:
        """Take a frame of rows; raise `MalformedFrameError` for more than the job has room for."""
        count, speculative, room = received.count, received.speculative, self._admitted.room
        self._queued += count
        if not count > 0 or max(self._queued, received.step + count) > room:
            raise MalformedFrameError("more rows came than the job has room for")
        if speculative and not (count - 1 <= speculative <= MOST_GUESSED and count <= MOST_SPECULATIVE):
            raise MalformedFrameError(
                f"{speculative} steps before the end of {count} rows are guessed; of at most {MOST_SPECULATIVE} rows "
                f"all but the first, or all and some before them, {MOST_GUESSED} in all"
            )
        work = StepWork(
            job=self._session,
            step=received.step,
            count=count,
            codec=received.codec,
            gives=self._admitted.codecs.out_of(received.step, is_tail=self._admitted.is_tail),
            data=received.data,
            whole=received.step >= self._admitted.cut.prompt_end,
            draw=self._draw() if self._admitted.is_tail else None,
            manifest=self._around.engine.manifest,
            speculative=speculative,
        )
        self.end_step = work.end
        self.in_hand += 1
        self._rows.put_nowait(Came(work=work, at=now, source=source))

    def draft(self, received: pb.Draft) -> None:
        """Take the ids that were guessed for rows to come; raise `MalformedFrameError`."""
        ids, vocabulary = tuple(received.ids), self._around.engine.manifest.vocabulary
        if not self._admitted.is_tail or len(self._drafts) >= _MOST_DRAFTS:
            raise MalformedFrameError(f"drafts go to the last stage, at most {_MOST_DRAFTS} before their rows")
        if not 0 < len(ids) <= MOST_SPECULATIVE or max(ids) >= vocabulary:
            raise MalformedFrameError(f"a draft has 1 to {MOST_SPECULATIVE} ids below {vocabulary}")
        self._drafts.append((received.step, ids))
        self._draft_came.set()

    def end(self) -> None:
        """Say that no frame follows those that came."""
        self._rows.put_nowait(None)

    async def next(self) -> Came | None:
        """Return the next frame, None after the last one."""
        came = await self._rows.get()
        if came is not None:
            self._queued -= came.work.count
        return came

    def done(self) -> None:
        """Say that the frame that was given out last is done."""
        self.in_hand -= 1

    def check(self, work: StepWork) -> None:
        """Raise `TensorError` for rows that do not belong where they are, or in this codec."""
        cut, codecs, stage = self._admitted.cut, self._admitted.codecs, self._admitted.call.stage
        if work.codec != (codec := codecs.into(work.step, stage=stage)):
            raise TensorError(
                f"stage {stage} takes the row of step {work.step} in codec {codec!r}, which is this profile's, not in "
                f"{work.codec[:32]!r}"
            )
        if work.step < codecs.prompt < work.end:
            raise TensorError("the prompt's rows and those behind it come in frames of their own")
        if work.step < cut.row < work.end:
            raise TensorError("rows that an earlier attempt signed and rows after them come in frames of their own")
        if work.end > cut.prompt_end and (work.step < cut.prompt_end or (work.count > 1 and not work.speculative)):
            raise TensorError("after the prompt's last row, rows come one by one or are speculative")
        if work.speculative and not work.whole:
            raise TensorError("a prompt's rows are not speculative")

    async def drafted(self, work: StepWork) -> StepWork:
        """Return the work with the ids guessed for it; raise `SpeculationError` if they do not come, or do not fit."""
        try:
            async with asyncio.timeout(_DRAFT_S):
                while not self._drafts:
                    self._draft_came.clear()
                    await self._draft_came.wait()
        except TimeoutError as error:
            raise SpeculationError(
                f"the draft for rows from step {work.step} on did not come; send it first"
            ) from error
        step, ids = self._drafts.popleft()
        first = max(work.step, work.certain)
        if (step, len(ids)) != (first, work.end - first):
            raise SpeculationError(
                f"a draft of {len(ids)} ids from step {step} on came for {work.end - first} rows from step "
                f"{first} on; open a new attempt over other stages"
            )
        return replace(work, draft=ids)

    def _draw(self) -> Draw:
        first = self._admitted.cut.prompt_end - 1
        return Draw(first_step=first, request=self._admitted.request_digest, terms=self._admitted.call.request)
