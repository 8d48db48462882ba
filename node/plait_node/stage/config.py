"""What a stage is told, and what it asks of the parts around it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from plait.protocol.ids import Address, Hash
from plait.protocol.messages import Request
from plait_node.policy import EVERYBODY, Guests


@dataclass(frozen=True, slots=True, kw_only=True)
class StageConfig:
    """One stage of one model under one profile; times in seconds."""

    owner: Address
    profile: Hash
    price: int  # base units per 1,000,000 steps x blocks
    credit_windows: int = 4  # unpaid windows that it works ahead
    max_jobs: int = 16
    worker_jobs: int = 16  # most jobs of one worker at once
    payers: Guests = EVERYBODY
    workers: Guests = EVERYBODY
    rows_bytes: int = 256 << 20  # memory for the rows of all jobs that may be sent again
    idle_s: float = 60.0  # a job without a frame for so long is closed
    unpaid_s: float = 3.0  # how long work waits for a payment on its way
    owed_s: float = 45.0  # how long the last payment for a closed job takes before it counts as left unpaid
    hold_s: float = 15.0  # how long the work of a job whose neighbour failed is held for its next attempt
    settle_s: float = 120.0  # how long payments for a closed job are taken
    step_rows: int = 2_048  # most rows in one frame to the next stage, whatever fits into 8 MiB
    decode_rows: int = 16  # most rows behind prompts, of all jobs, in one pass
    pass_s: float = 0.25  # how long a pass with prompt rows is to compute


# Tells whether a request without signature and quote is one that the chain knows (docs/protocol.md, section 3).
OnChain = Callable[[Request, Hash], Awaitable[bool]]
