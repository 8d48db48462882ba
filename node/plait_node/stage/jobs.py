"""The jobs that a stage has: one attempt of each request at a time, an end for what idles, what waits for its pay."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator

from plait.protocol.checks import CLOCK_TOLERANCE_S
from plait.protocol.errors import DeadlineError
from plait.protocol.ids import Address, Hash
from plait_node.engine.scheduler import Scheduler
from plait_node.stage.admission import Admitted
from plait_node.stage.config import StageConfig
from plait_node.stage.errors import IdleError, JobOpenError
from plait_node.stage.job import Handover, StageJob

__all__ = ["JobBook"]


class JobBook:
    """Open jobs, and closed ones for as long as payments for them are taken."""

    def __init__(
        self,
        config: StageConfig,
        scheduler: Scheduler,
        *,
        spawn: Callable[[Coroutine[None, None, None]], object],
    ) -> None:
        """Begin with none; `spawn` runs what nobody waits for."""
        self._config, self._scheduler, self._spawn = config, scheduler, spawn
        self._jobs: dict[Hash, StageJob] = {}
        self._attempts: dict[Hash, tuple[int, int]] = {}  # request -> highest attempt, its deadline

    def __iter__(self) -> Iterator[StageJob]:
        return iter(list(self._jobs.values()))

    def add(self, job: StageJob) -> None:
        """Take an open job as the highest attempt of its request."""
        admitted = job.admitted
        self._jobs[job.hash] = job
        self._attempts[admitted.request_digest] = (admitted.job.attempt, admitted.call.request.deadline)

    def find(self, name: bytes) -> StageJob | None:
        """Return an open job. Frames for others are late, which is nobody's fault."""
        job = self._jobs.get(Hash(name))
        return None if job is None or job.closed else job

    def of(self, worker: Address | None = None) -> list[StageJob]:
        """Return the open jobs, of one worker or of all."""
        return [job for job in self._jobs.values() if not job.closed and worker in (None, job.worker.peer)]

    def attempts_of(self, request: Hash) -> list[StageJob]:
        """Return the open jobs of a request, oldest first."""
        return [job for job in self._jobs.values() if job.admitted.request_digest == request and not job.closed]

    def owing(self, request: Hash, worker: Address) -> StageJob | None:
        """Return the job for which a worker pays: its highest attempt of a request, closed or not."""
        jobs = (
            job
            for job in self._jobs.values()
            if job.admitted.request_digest == request and job.admitted.job.worker == worker
        )
        return max(jobs, key=lambda each: each.admitted.job.attempt, default=None)

    def unpaid(self, now: float) -> Iterator[tuple[StageJob, int]]:
        """Yield the last attempt of each worker at each request, if closed, with what is overdue of it."""
        latest: dict[tuple[Hash, Address], StageJob] = {}
        for job in sorted(self._jobs.values(), key=lambda each: each.admitted.job.attempt):
            latest[job.admitted.request_digest, job.admitted.job.worker] = job
        for job in latest.values():
            late = job.unpaid or now - job.touched > self._config.owed_s
            if job.closed and late:
                yield job, job.fee - job.credit.paid

    async def fence(self, admitted: Admitted) -> Handover | None:
        """Refuse an attempt that is not above those seen, and close the one before it; return what goes on."""
        known, _ = self._attempts.get(admitted.request_digest, (-1, 0))
        if admitted.job.attempt <= known:
            raise JobOpenError(f"attempt {known} of this request was opened here; open one with a higher number")
        earlier = self.attempts_of(admitted.request_digest)
        last = earlier[-1] if earlier and admitted.cut.row else None
        for job in earlier:
            if job is not last or job.admitted.job.worker != admitted.job.worker:
                await _supersede(job)
        # Nothing is waited for once the work is in hand: it would be nobody's if this call ended meanwhile.
        taken = last.hand_over(admitted.cut.row) if last is not None and not last.closed else None
        if taken is None and last is not None and not last.closed:
            await _supersede(last)
        if taken is not None and taken.before != admitted.call.before:
            self._spawn(self._scheduler.close(taken.session))
            taken.kept.free()
            raise JobOpenError(f"{taken.before} steps of earlier attempts are owed, not {admitted.call.before}")
        return taken

    def sweep(self, now: float, *, clock: float) -> None:
        """Close what idles or is late, forget what is settled; `now` is the event loop's time, `clock` Unix time."""
        config = self._config
        for name, job in list(self._jobs.items()):
            idle = now - job.touched
            if job.closed and idle > config.settle_s:
                del self._jobs[name]
            elif not job.closed and clock > job.admitted.call.request.deadline + CLOCK_TOLERANCE_S:
                job.close(DeadlineError("the request's deadline has passed").fault())
            elif not job.closed and job.suspended_at is not None and now - job.suspended_at > config.hold_s:
                job.close()
            elif not job.closed and idle > config.idle_s:
                job.close(IdleError(f"nothing came for the job for {config.idle_s:g} s").fault(), blamed=job.upstream)
        for request, (_, deadline) in list(self._attempts.items()):
            if clock > deadline + CLOCK_TOLERANCE_S:
                del self._attempts[request]


async def _supersede(job: StageJob) -> None:
    job.close(JobOpenError("a later attempt of this request was opened").fault())
    await job.wait_closed()  # its room may be what the later one needs
