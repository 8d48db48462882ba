"""The chain's clock. A view sees the last block's time, so going somewhere mines a block there."""

from __future__ import annotations

from brownie import chain, web3

EPOCH_S = 600


def now() -> int:
    return chain[-1].timestamp


def epoch_now() -> int:
    return now() // EPOCH_S


def go_to(when: int) -> None:
    # `chain.mine(timestamp=...)` sends anvil parameters that it refuses.
    _ask("evm_mine", when)


def pass_by(seconds: int) -> None:
    go_to(now() + seconds)


def next_epoch(count: int = 1) -> None:
    """Go to the first second of a later epoch, so that the steps that follow share one."""
    go_to((epoch_now() + count) * EPOCH_S)


def next_block_at(when: int) -> None:
    """Set the time of the next transaction, which otherwise follows the clock on the wall."""
    _ask("evm_setNextBlockTimestamp", when)


def _ask(method: str, when: int) -> None:
    answer = web3.provider.make_request(method, [hex(when)])
    assert "error" not in answer, answer
