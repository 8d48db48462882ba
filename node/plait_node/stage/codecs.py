"""In which codecs the rows of one request travel: the profile's own for the prompt, and for what follows it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from plait.protocol.ids import Hash, to_hex
from plait.protocol.manifest import Manifest, Profile
from plait_node.stage.errors import StageError
from plait_node.wire.tensor import FP32, IDS, row_bytes

__all__ = ["RowCodecs", "profile_of"]


def profile_of(manifest: Manifest, profile: Hash) -> Profile:
    """Return a model's profile of this id; raise `StageError` if it has none."""
    found = manifest.profile(profile)
    if found is None:
        raise StageError(f"the model has no profile {to_hex(profile)}; serve one of its manifest's")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class RowCodecs:
    """The codecs of a request's rows. They change where its payer's prompt ends, whatever attempt sends the rows."""

    prefill: str
    decode: str
    prompt: int  # the first step behind the prompt
    hidden: int

    @classmethod
    def of(cls, profile: Profile, *, prompt: int, hidden: int) -> RowCodecs:
        """Return the codecs of a profile for a prompt of so many steps, and rows of `hidden` values."""
        return cls(prefill=profile.prefill_codec, decode=profile.decode_codec, prompt=prompt, hidden=hidden)

    def between(self, step: int) -> str:
        """Return the codec of a step's row between two stages."""
        return self.prefill if step < self.prompt else self.decode

    def into(self, step: int, *, stage: int) -> str:
        """Return the codec of the row that a stage takes for a step: the first one takes ids."""
        return self.between(step) if stage else IDS

    def out_of(self, step: int, *, is_tail: bool) -> str:
        """Return the codec of the row that a stage gives for a step; the last one's is hashed as computed, not sent."""
        return FP32 if is_tail else self.between(step)

    def width(self, step: int) -> int:
        """Return how many bytes a step's row has between two stages."""
        return row_bytes(self.between(step), self.hidden)

    def size(self, first: int, last: int) -> int:
        """Return how many bytes the rows of steps first to last - 1 have."""
        return sum((end - begin) * self.width(begin) for begin, end in self.pieces(first, last))

    def cacheable(self, steps: int) -> int:
        """Return how many of a job's first `steps` steps may come from a cache, or be kept in one.

        Where the codecs differ, the rows behind a prompt are not those that they would be in a longer prompt.
        """
        return steps if self.prefill == self.decode else min(steps, self.prompt)

    def pieces(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Yield steps first to last - 1 as ranges of one codec each."""
        edge = min(max(first, self.prompt), last)
        if first < edge:
            yield first, edge
        if edge < last:
            yield edge, last
