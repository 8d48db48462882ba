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


def hash_rows(start: int, data: bytes, *, width: int) -> RowHashes:
    """Hash rows of `width` bytes each that lie back to back."""
    view = memoryview(data)
    hashes = [
        sha256(step.to_bytes(4, "big") + view[at : at + width]).digest()
        for step, at in enumerate(range(0, len(data), width), start)
    ]
    return RowHashes(start=start, hashes=hashes)


def hash_tail_rows(start: int, data: bytes, *, width: int, sampled: int | None) -> RowHashes:
    """Hash the last stage's rows: each followed by the id sampled from it, which only the last row may have."""
    none = id_bytes(NO_TOKEN)
    view = memoryview(data)
    hashes = [
        sha256(step.to_bytes(4, "big") + view[at : at + width] + none).digest()
        for step, at in enumerate(range(0, len(data), width), start)
    ]
    if sampled is None:
        return RowHashes(start=start, hashes=hashes)
    unsampled, last = hashes[-1], start + len(hashes) - 1
    hashes[-1] = sha256(last.to_bytes(4, "big") + view[-width:] + id_bytes(sampled)).digest()
    return RowHashes(start=start, hashes=hashes, unsampled=unsampled)
