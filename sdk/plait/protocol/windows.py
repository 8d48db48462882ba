"""Steps, windows and leaves: how a job's steps are cut, and what a leaf's roots are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise

from plait.protocol.commitments import id_bytes
from plait.protocol.errors import MalformedMessageError
from plait.protocol.ids import Hash, keccak
from plait.protocol.messages import Leaf
from plait.protocol.tree import Tree, tree_root
from plait.protocol.typed import Domain, Signed

WINDOW_STEPS = 16
NO_TOKEN = 0xFFFFFFFF  # the id in the tail's output row where none was sampled
REPLAYED = 0x80000000  # windows that a replacement replays are numbered from here

__all__ = [
    "NO_TOKEN",
    "REPLAYED",
    "WINDOW_STEPS",
    "Cut",
    "Window",
    "first_lineage",
    "id_bytes",
    "leaf_data",
    "leaves_root",
    "lineage",
    "progress_to",
    "row_hash",
    "salted_root",
    "window_root",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Steps [start, start + count) of one job, numbered from 0 at `Job.row`."""

    index: int
    start: int
    count: int

    @property
    def end(self) -> int:
        """Return the first step after the window."""
        return self.start + self.count


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """How one Job's steps fall into windows; `prompt_end` is P = inputTokens + Job.start."""

    prompt_end: int
    row: int = 0

    def __post_init__(self) -> None:
        if self.prompt_end < 1 or self.row < 0:
            raise MalformedMessageError("a job has at least one prompt step and begins at step 0 or later")

    def close_at(self, step: int) -> int:
        """Return where the window that holds `step` ends, if the answer does not end before."""
        if step < self.prompt_end:
            return min(step // WINDOW_STEPS * WINDOW_STEPS + WINDOW_STEPS, self.prompt_end)
        past = step - self.prompt_end
        return self.prompt_end + past // WINDOW_STEPS * WINDOW_STEPS + WINDOW_STEPS

    def windows(self, end: int) -> list[Window]:
        """Return the windows that cover [row, end), each step exactly once."""
        found: list[Window] = []
        start = self.row
        while start < end:
            stop = min(self.close_at(start), end)
            found.append(Window(index=len(found), start=start, count=stop - start))
            start = stop
        return found


def row_hash(step: int, data: bytes) -> bytes:
    """Return SHA-256 over the step, 4 bytes, and the row's bytes exactly as on the wire."""
    return sha256(id_bytes(step) + data).digest()


def window_root(row_hashes: Iterable[bytes]) -> Hash:
    """Return the tree root over a window's row hashes."""
    return tree_root(row_hashes)


def salted_root(salt_rows: bytes, *, boundary: int, window: int, root: Hash) -> Hash:
    """Return `Leaf.inRoot` or `outRoot`; boundary = route index of the stage that consumes the rows."""
    inner = keccak(salt_rows, boundary.to_bytes(2, "big"), window.to_bytes(4, "big"))
    return keccak(inner, root)


def progress_to(*, prompt_end: int, input_tokens: int, start: int, window_end: int) -> int:
    """Return `Progress.to` after the window that ends before step `window_end`."""
    return start if window_end < prompt_end else window_end - input_tokens + 1


def leaf_data(domain: Domain, leaf: Signed[Leaf]) -> bytes:
    """Return a signed leaf as data of the tree in `Progress.leaves`: digest, then signature."""
    return leaf.digest(domain) + leaf.signature


def leaves_root(domain: Domain, leaves: Sequence[Signed[Leaf]]) -> Hash:
    """Return the root over all leaves of the Job so far; raise unless ordered by (window, stage)."""
    order = [(leaf.message.window, leaf.message.stage) for leaf in leaves]
    if any(later <= earlier for earlier, later in pairwise(order)):
        raise MalformedMessageError("leaves are ordered by window, then stage")
    return Tree(leaf_data(domain, leaf) for leaf in leaves).root()


def first_lineage(model: Hash, *, first_block: int, profile: Hash) -> Hash:
    """Return the key before any window of the stage that begins at `first_block`."""
    return keccak(model, first_block.to_bytes(2, "big"), profile)


def lineage(prev_key: Hash, root: Hash) -> Hash:
    """Return the key of a cached prefix one window longer; `root` = unsalted root of the input rows."""
    return keccak(prev_key, root)
