"""One question as its payer sees it: asked, streamed, checked, paid; times on the payer's clock."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass

from bench.live.jobs import Job

from plait import AsyncPlait

__all__ = ["Taken", "ask"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What one job took one way; seconds since the call."""

    job: int
    kind: str
    way: str
    warm: bool
    seconds: float  # to the last piece of text
    ttft_s: float  # to the first one
    tokens: int
    prompt_tokens: int
    max_tokens: int
    method: str
    amounts: Mapping[str, int]
    predicted: Mapping[str, float]
    reason: str
    text: str  # SHA-256, to tell whether all ways gave the same

    @property
    def per_token_s(self) -> float:
        """Return what is compared."""
        return self.seconds / self.tokens

    @property
    def expected_s(self) -> float | None:
        """Return what the worker foresaw for as many tokens as came; None where it foresaw nothing."""
        told = self.predicted
        if "total_s" not in told or "first_token_s" not in told:
            return None
        gap = (told["total_s"] - told["first_token_s"]) / max(1, self.max_tokens - 1)
        return told["first_token_s"] + gap * (self.tokens - 1)


async def ask(client: AsyncPlait, model: str, job: Job, *, way: str) -> Taken:
    """Ask and read to the end; raise `PlaitError`."""
    began, first, last, text = time.perf_counter(), 0.0, 0.0, hashlib.sha256()
    stream = await client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": job.text}],
        max_tokens=job.max_tokens,
        temperature=0,
        stream=True,
    )
    async for chunk in stream:
        piece = chunk.choices[0].delta.content
        if piece:
            last = time.perf_counter() - began
            first = first or last
            text.update(piece.encode())
    done = stream.completion
    return Taken(
        job=job.number,
        kind=job.kind,
        way=way,
        warm=job.warm,
        seconds=last or time.perf_counter() - began,  # an answer may have no text at all
        ttft_s=first or time.perf_counter() - began,
        tokens=max(1, done.usage.completion_tokens),
        prompt_tokens=done.usage.prompt_tokens,
        max_tokens=job.max_tokens,
        method=done.job.method,
        amounts=dict(done.job.amounts),
        predicted=dict(done.job.predicted),
        reason=done.job.reason,
        text=text.hexdigest()[:16],
    )
