"""Whose work an answer's price pays: each attempt's part, in order, and what the payer's money covers of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from plait.protocol.checks import terms_of
from plait.protocol.ids import Address
from plait.protocol.messages import Quote, Request
from plait.protocol.money import job_price
from plait_node.gateway.windows import Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one accepted attempt adds to the answer's price, in base units; the parts of an answer are its price.

    `lead` is what its prompt costs, paid before it is computed, for as long as no attempt has a progress.
    """

    attempt: int
    worker: Address
    amount: int
    windows: int
    lead: int = 0


def parts_of(quote: Quote, request: Request, attempts: Sequence[Attempt]) -> tuple[Part, ...]:
    """Return the parts of an answer's attempts, in order; the input is the first one's that has a progress."""
    first = next((attempt for attempt in attempts if attempt.progress), attempts[0] if attempts else None)
    terms = terms_of(quote, first.job.profile) if first else None
    if terms is None:
        return ()
    lead = 0 if first and first.progress else job_price(terms, input_tokens=request.input_tokens, output_tokens=0)
    found: list[Part] = []
    output = before = 0
    for attempt in attempts:
        output += attempt.paid_output
        begun = attempt.progress is not None
        total = job_price(terms, input_tokens=request.input_tokens, output_tokens=output) if begun else before
        part = Part(
            attempt=attempt.job.attempt,
            worker=attempt.job.worker,
            amount=total - before,
            windows=attempt.windows if begun else 0,
            lead=lead,
        )
        found.append(part)
        before = total
    return tuple(found)


def covered(paid: int, parts: Sequence[Part], *, ended: bool) -> dict[Address, int]:
    """Return what of `paid` base units is each worker's, never more than its parts: the first come first.

    While no part is worth anything and the job runs, the prompt is paid ahead to the worker that has it now.
    """
    found = dict.fromkeys((part.worker for part in parts), 0)
    rest = paid
    for part in parts:
        given = min(rest, part.amount)
        found[part.worker] += given
        rest -= given
    if parts and not ended and not any(part.amount for part in parts):
        found[parts[-1].worker] = min(paid, parts[-1].lead)
    return found
