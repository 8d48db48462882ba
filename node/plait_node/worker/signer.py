"""What the worker signs of a job: the job record under a fresh attempt, progress, the receipt."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from plait.ledger import Safe

if TYPE_CHECKING:
    from plait.ledger import SigningGuard
    from plait.protocol.messages import Job, Progress, Receipt
    from plait.protocol.typed import Domain, Key, Signed


class WorkerSigner:
    """Signs with one service key, asking the guard first."""

    def __init__(self, *, guard: SigningGuard, key: Key, domain: Domain) -> None:
        """Sign for the node whose service key this is."""
        self._guard = guard
        self._key = key
        self._domain = domain

    def job(self, draft: Job) -> Signed[Job]:
        """Sign a job record under the first attempt that was never used, which is journalled by then.

        Answers are sealed by counters under the job's hash: a job record of an earlier life must not come again, be
        it the very same.
        """
        attempt = draft.attempt
        while True:
            job = replace(draft, attempt=attempt)
            verdict = self._guard.check(job)
            if isinstance(verdict, Safe) and not verdict.same:
                return self._key.signed(self._domain, job)
            attempt += 1

    def progress(self, progress: Progress) -> Signed[Progress]:
        """Sign a progress."""
        return self._guard.sign(self._key, progress)

    def receipt(self, receipt: Receipt) -> Signed[Receipt]:
        """Sign a receipt."""
        return self._guard.sign(self._key, receipt)
