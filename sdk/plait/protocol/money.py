"""Prices and shares in base units; the name says which way each one rounds."""

from __future__ import annotations

from plait.protocol.messages import Stage, Terms

MILLION = 1_000_000


def input_price_rounded_up(tokens: int, price: int) -> int:
    """Return what `tokens` of prompt cost at a price per 1,000,000."""
    return _ceil_million(tokens * price)


def output_price_rounded_up(tokens: int, price: int) -> int:
    """Return what `tokens` of answer cost at a price per 1,000,000."""
    return _ceil_million(tokens * price)


def job_price(terms: Terms, *, input_tokens: int, output_tokens: int) -> int:
    """Return the price of a job: each direction rounded up on its own."""
    return input_price_rounded_up(input_tokens, terms.input_price) + output_price_rounded_up(
        output_tokens, terms.output_price
    )


def worker_share_rounded_down(amount: int, share: int) -> int:
    """Return the worker's part of a payer's amount; `share` in millionths."""
    return amount * share // MILLION


def stage_fee_rounded_up(steps: int, blocks: int, price: int) -> int:
    """Return a stage's fee for the steps in its paid leaves; price per 1,000,000 steps x blocks."""
    return _ceil_million(steps * blocks * price)


def stage_fee_of(stage: Stage, steps: int) -> int:
    """Return the fee of a stage of a route, rounded up."""
    return stage_fee_rounded_up(steps, stage.last - stage.first, stage.price)


def _ceil_million(product: int) -> int:
    return -(-product // MILLION)
