"""The selector in a real network against the best fixed methods: the same jobs, paired and interleaved."""

from __future__ import annotations

from bench.live.jobs import Job, mixed_jobs
from bench.live.payer import Taken, ask
from bench.live.pins import FIXED, SELECTOR, best_fixed, follows
from bench.live.report import report, written

__all__ = [
    "FIXED",
    "SELECTOR",
    "Job",
    "Taken",
    "ask",
    "best_fixed",
    "follows",
    "mixed_jobs",
    "report",
    "written",
]
