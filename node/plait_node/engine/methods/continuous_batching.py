"""Continuous batching: decode rows of all running jobs share a pass, and a job joins or leaves between any two."""

from __future__ import annotations

from collections.abc import Mapping

from plait_node.engine.methods.base import Amount, Facts, Method

__all__ = ["ContinuousBatching", "jobs_to_start"]


class ContinuousBatching(Method):
    """One decode row per running job and pass; rows that check proposals come on top."""

    name = "continuous-batching"
    title = "compute the next token of several jobs in one pass"
    scope = "lane"
    amount = Amount(unit="decode rows in one pass", least=1, most=256, default=16)

    def refusal(self, amount: int, facts: Facts, chosen: Mapping[str, int]) -> str | None:
        """Return why not; see `Method`."""
        del chosen
        return f"a pass takes at most {facts.batch} decode rows here" if amount > facts.batch else None


def jobs_to_start(*, running: int, most: int, rooms: list[int], free: int) -> int:
    """Return how many waiting jobs may start now, in their order: none overtakes one whose room is not free yet.

    `rooms` are the steps that each waiting job needs, `free` the steps that are free.
    """
    started = 0
    for room in rooms[: max(0, most - running)]:
        free -= room
        if free < 0:
            break
        started += 1
    return started
