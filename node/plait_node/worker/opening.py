"""Open a job on every stage of its route, and learn from where on rows must be computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plait.protocol.codec import signed_to_pb, to_pb
from plait.protocol.pb import signed_pb2, stage_pb2
from plait.protocol.windows import WINDOW_STEPS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plait.protocol.ids import Hash
    from plait.protocol.messages import Job, Pay
    from plait.protocol.typed import Signed
    from plait_node.worker.admission import Task
    from plait_node.worker.ahead import Sent
    from plait_node.worker.plan import Decision


def open_frame(
    task: Task,
    decision: Decision,
    signed: Signed[Job],
    *,
    index: int,
    lineage: Sequence[Hash],
    before: int,
    pay: Signed[Pay] | None,
) -> stage_pb2.Frame:
    """Return the frame that opens a job on the stage at `index`; `before` steps of earlier attempts are owed to it."""
    request = task.request
    body = stage_pb2.Open(
        job=signed_to_pb(signed),
        salt_rows=task.content_key.salt("rows"),
        stage=index,
        lineage=list(lineage),
        room=request.input_tokens + request.max_tokens,
        before=before,
    )
    if task.quote is not None and task.signed_request is not None:
        body.quote.CopyFrom(signed_to_pb(task.quote))
        body.request.CopyFrom(signed_to_pb(task.signed_request))
    else:
        body.request.CopyFrom(signed_pb2.SignedRequest(message=to_pb(request)))
    if pay is not None:
        body.pay.CopyFrom(signed_to_pb(pay))
    records = decision.route.records
    if index + 1 < len(records):
        body.next.CopyFrom(records[index + 1].stored.to_pb())
    return stage_pb2.Frame(open=body)


def start_frames(job: Hash, rows: Sequence[int]) -> list[stage_pb2.Frame]:
    """Return for each stage the frame that says where its rows begin, and where those of the next stage do."""
    following = [*rows[1:], rows[-1]]
    return [
        stage_pb2.Frame(start=stage_pb2.Start(job=job, row=row, next_row=next_row))
        for row, next_row in zip(rows, following, strict=True)
    ]


def rows_frames(job: Hash, ids: Sequence[int], *, step: int, chunk: int) -> list[stage_pb2.Frame]:
    """Return ids as frames of at most `chunk` rows (0: one frame), the first at `step`."""
    size = chunk or len(ids)
    return [
        stage_pb2.Frame(
            rows=stage_pb2.Rows(
                job=job,
                step=step + at,
                count=len(ids[at : at + size]),
                codec="ids",
                data=b"".join(token.to_bytes(4, "big") for token in ids[at : at + size]),
            )
        )
        for at in range(0, len(ids), size)
    ]


def step_frames(job: Hash, sent: Sent) -> tuple[stage_pb2.Frame, stage_pb2.Frame | None]:
    """Return rows behind the prompt, for the first stage, and the ids of those that are guessed, for the last."""
    (frame,) = rows_frames(job, sent.ids, step=sent.step, chunk=0)
    frame.rows.speculative = sent.end - sent.certain
    guessed = sent.guessed
    draft = stage_pb2.Draft(job=job, step=sent.end - len(guessed), ids=guessed)
    return frame, stage_pb2.Frame(draft=draft) if guessed else None


def reused_row(windows: int) -> int:
    """Return the first step to compute after this many cached windows."""
    return WINDOW_STEPS * windows
