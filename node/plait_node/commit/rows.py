"""Hashes of encoded rows, many at a time: pure, so that a worker thread can do it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from plait.protocol.commitments import id_bytes
from plait.protocol.windows import NO_TOKEN


@dataclass(frozen=True, slots=True, kw_only=True)
class RowHashes:
    """Hashes of the rows of steps start, start + 1, ..."""

    start: int
    hashes: Sequence[bytes]
    # The last row's hash as if no token had been sampled from it: what a prefix cache may keep.
    unsampled: bytes | None = None

    @property
    def end(self) -> int:
        """Return the first step after them."""
        return self.start + len(self.hashes)

    def below(self, step: int) -> RowHashes:
        """Return those of steps below `step`."""
        if step >= self.end:
            return self
        return RowHashes(start=self.start, hashes=self.hashes[: max(0, step - self.start)])

    def since(self, step: int) -> RowHashes:
        """Return those of `step` and later steps."""
        first = max(step, self.start)
        return RowHashes(start=first, hashes=self.hashes[first - self.start :], unsampled=self.unsampled)


def hash_rows(start: int, data: bytes, *, width: int) -> RowHashes:
    """Hash rows of `width` bytes each that lie back to back."""
    view = memoryview(data)
    hashes = [
        sha256(step.to_bytes(4, "big") + view[at : at + width]).digest()
        for step, at in enumerate(range(0, len(data), width), start)
    ]
    return RowHashes(start=start, hashes=hashes)


def hash_tail_rows(start: int, data: bytes, *, width: int, sampled: Sequence[int]) -> RowHashes:
    """Hash the last stage's rows: each followed by the id sampled from it, which only the last ones have."""
    view, count = memoryview(data), len(data) // width
    ids = [NO_TOKEN] * (count - len(sampled)) + list(sampled)
    hashes = [
        _tail_hash(step, view[at : at + width], token)
        for step, at, token in zip(range(start, start + count), range(0, len(data), width), ids, strict=True)
    ]
    unsampled = _tail_hash(start + count - 1, view[-width:], NO_TOKEN) if sampled else None
    return RowHashes(start=start, hashes=hashes, unsampled=unsampled)


def _tail_hash(step: int, row: memoryview, token: int) -> bytes:
    return sha256(step.to_bytes(4, "big") + row + id_bytes(token)).digest()
