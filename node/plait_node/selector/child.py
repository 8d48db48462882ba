"""Run a module of this package in a process of its own: what takes torch, or seconds, is no part of a worker."""

from __future__ import annotations

import asyncio
import os
import sys

__all__ = ["run_module"]


async def run_module(module: str, *arguments: str, deadline_s: float) -> int:
    """Run `python -m module` with one thread and return its exit status; it ends when the caller is cancelled.

    Raise `TimeoutError` where it takes longer than `deadline_s`, `OSError` where it cannot be started.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments), env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    try:
        async with asyncio.timeout(deadline_s):
            return await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
