"""Prefix cache: whole windows of a prompt keep their keys and values for the next job that begins alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from plait.protocol.ids import Hash, keccak
from plait.protocol.windows import WINDOW_STEPS, first_lineage, id_bytes, lineage, row_hash, window_root
from plait_node.engine.methods.base import Facts, Method

__all__ = ["PrefixCache", "prefix_keys", "salted_lineage", "window_roots"]


class PrefixCache(Method):
    """Cached windows live in a lane's free KV room."""

    name = "prefix-cache"
    title = "reuse the keys and values of a prompt's beginning"
    scope = "job"

    def refusal(self, amount: int, facts: Facts, chosen: Mapping[str, int]) -> str | None:
        """Return why not; see `Method`."""
        del amount, facts, chosen
        return None


def salted_lineage(model: Hash, *, first_block: int, profile: Hash, salt: bytes) -> Hash:
    """Return the key before any window; payers with different salts never meet in the cache."""
    return keccak(first_lineage(model, first_block=first_block, profile=profile), salt)


def window_roots(ids: Sequence[int]) -> list[Hash]:
    """Return the root of every whole window of a prompt that leaves at least one row to compute."""
    whole = max(0, len(ids) - 1) // WINDOW_STEPS * WINDOW_STEPS
    return [
        window_root(row_hash(step, id_bytes(ids[step])) for step in range(start, start + WINDOW_STEPS))
        for start in range(0, whole, WINDOW_STEPS)
    ]


def prefix_keys(first: Hash, roots: Sequence[Hash]) -> list[Hash]:
    """Return one key a window, each over all windows before it."""
    keys: list[Hash] = []
    for root in roots:
        keys.append(lineage(keys[-1] if keys else first, root))
    return keys
