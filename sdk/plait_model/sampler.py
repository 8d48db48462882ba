"""Draw one token exactly as PROTOCOL section 7 says, so that anyone can draw it again."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from plait.protocol.ids import keccak
from plait_model.errors import BadLogitsError, SamplingRangeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from plait.protocol.ids import Hash
    from plait.protocol.messages import Sampling

__all__ = ["UNSURE_BELOW", "SampledToken", "gumbel", "sample"]

_MILLION = 1_000_000
# A judge whose logarithms differ in the last bits cannot tell apart what lies closer than this.
UNSURE_BELOW = 1e-9
# Of words, one alone costs as much as this many in a row.
_ALONE = 700
_ROWS = 64  # logits are first looked through as columns of this many
# A sum of at least 1 stays as it is when less than 2^-53 is added: half of its last bit. ln 2^-53 = -36.7.
_VANISHED = -37.0
# Far more than the last bits of a logarithm: rounding never hides a token that could win.
_SLACK = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledToken:
    """A drawn id and how far the draw was from another one; `inf` where nothing else could be drawn."""

    id: int
    margin: float

    @property
    def sure(self) -> bool:
        """Say whether a judge may insist on this very token."""
        return self.margin > UNSURE_BELOW


def sample(
    logits: NDArray[np.float32], *, seed: Hash, request: Hash, position: int, sampling: Sampling
) -> SampledToken:
    """Draw the token of one absolute output position.

    Raises:
        SamplingRangeError: topP is 0 or above one million, or the position is negative.
        BadLogitsError: a NaN, a +inf, or no finite logit.
    """
    row = np.asarray(logits)
    best = _checked_best(row)
    if sampling.temperature == 0:
        return _greedy(row, best)
    _check_range(position, sampling)
    noise = _Noise(seed, request, position, len(row))
    degrees = sampling.temperature / _MILLION
    top_k = sampling.top_k if 0 < sampling.top_k < len(row) else 0
    if sampling.top_p < _MILLION:
        ids, border = _nucleus(row, degrees, top_k, sampling.top_p)
    elif top_k:
        ids, border = _first(row, top_k), np.inf
    else:
        return _anything(row, degrees, noise)
    return _best(_scaled(row[ids], degrees) + noise.of(ids), ids, border=border)


def gumbel(seed: Hash, request: Hash, position: int, size: int) -> NDArray[np.float64]:
    """Return the Gumbel noise of one position, one value per row of the output head."""
    return _from_words(_source(seed, request, position).random_raw(size))


class _Noise:
    """The Gumbel noise of one position, made only where it is looked at."""

    def __init__(self, seed: Hash, request: Hash, position: int, size: int) -> None:
        self._source = _source(seed, request, position)
        self._size = size

    def words(self) -> NDArray[np.uint64]:
        """Return the words of all ids; call it once, and nothing else."""
        return self._source.random_raw(self._size)

    def of(self, ids: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return the noise of ascending ids; call it once, and nothing else."""
        if len(ids) * _ALONE > self._size:
            return _from_words(self.words()[ids])
        words = np.empty(len(ids), dtype=np.uint64)
        made, block = 0, np.empty(0, dtype=np.uint64)
        for index, token in enumerate(ids.tolist()):
            number, place = divmod(token, 4)  # each step of the generator's counter gives four words
            if made <= number:
                self._source.advance(number - made)
                block, made = self._source.random_raw(4), number + 1
            words[index] = block[place]
        return _from_words(words)


def _source(seed: Hash, request: Hash, position: int) -> np.random.Philox:
    # Plain integers: numpy would take lists through floats and lose bits.
    key = int.from_bytes(keccak(seed, request)[:16], "little")
    return np.random.Philox(key=key, counter=position << 128)


def _from_words(words: NDArray[np.uint64]) -> NDArray[np.float64]:
    u = ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
    return -np.log(-np.log(u))


def _check_range(position: int, sampling: Sampling) -> None:
    if not 0 < sampling.top_p <= _MILLION:
        raise SamplingRangeError(f"topP is {sampling.top_p} millionths; give 1 to {_MILLION}")
    if not 0 <= position < 2**32:
        raise SamplingRangeError(f"output position {position} is outside 0 to 2**32 - 1; give the absolute position")


def _checked_best(row: NDArray[np.float32]) -> int:
    """Return the id of the best logit, the lowest of several."""
    if row.ndim != 1 or len(row) == 0:
        raise BadLogitsError(f"logits have shape {row.shape}; one row of the output head is needed")
    best = int(row.argmax())  # the first NaN, if there is one
    if not np.isfinite(row[best]):
        raise BadLogitsError(f"the best logit is {row[best]}; the job fails, run it on another stage")
    return best


def _scaled(values: NDArray[np.float32], degrees: float) -> NDArray[np.float64]:
    """Return x of PROTOCOL section 7; fp32 values keep their order and their ties."""
    return values.astype(np.float64) / degrees


def _greedy(row: NDArray[np.float32], best: int) -> SampledToken:
    others = [part.max() for part in (row[:best], row[best + 1 :]) if len(part)]
    gap = float(row[best]) - float(max(others)) if others else np.inf
    return SampledToken(id=best, margin=gap)


def _anything(row: NDArray[np.float32], degrees: float, noise: _Noise) -> SampledToken:
    """Draw from all ids: with the most noise that there is, only those near the best can still win or come second."""
    words = noise.words()
    ids = _first(row, min(_ROWS, len(row)))
    scores = _scaled(row[ids], degrees) + _from_words(words[ids])
    second = np.partition(scores, -2)[-2] if len(ids) > 1 else -np.inf
    most = float(_from_words(words.max(keepdims=True))[0])
    lowest = (second - most - _SLACK) * degrees
    ids = np.flatnonzero(row >= lowest - abs(lowest) * _SLACK) if np.isfinite(lowest) else np.arange(len(row))
    return _best(_scaled(row[ids], degrees) + _from_words(words[ids]), ids, border=np.inf)


def _first(row: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """Return the ids of the first `count` in order of logits, ties to the lower id, as ascending ids."""
    near = _near_best(row, count)
    last = np.partition(row[near], len(near) - count)[len(near) - count]
    above, tied = near[row[near] > last], near[row[near] == last]
    return np.sort(np.concatenate([above, tied[: count - len(above)]]))


def _near_best(row: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """Return ascending ids among which the first `count` and all that tie with them are."""
    columns = len(row) // _ROWS
    if count > columns:
        return np.arange(len(row))
    # The columns' maxima are values of the row, so the row has at least `count` values from their count-th on.
    best = row[: columns * _ROWS].reshape(_ROWS, columns).max(axis=0)
    return np.flatnonzero(row >= np.partition(best, columns - count)[columns - count])


def _nucleus(row: NDArray[np.float32], degrees: float, top_k: int, top_p: int) -> tuple[NDArray[np.intp], float]:
    """Return the kept ids, ascending, and how far the border lies from topP, in parts of the whole mass."""
    held = row[_first(row, top_k)] if top_k else row
    best = held.max()
    # What is left out adds nothing to any running sum.
    held = held[held >= float(best) + _VANISHED * degrees - abs(float(best)) * _SLACK]
    ordered = _scaled(np.sort(held)[::-1], degrees)
    mass = np.cumsum(np.exp(ordered - ordered[0]))
    whole, part = mass[-1], top_p / _MILLION
    # Division and product are monotone, so what grows along the sum is found by halving.
    kept = bisect_left(mass, x=True, key=lambda reached: bool(reached * _MILLION >= top_p * whole)) + 1
    crossed = bisect_left(mass, x=True, key=lambda reached: bool(reached / whole >= part))
    border = min(abs(float(mass[at] / whole - part)) for at in (crossed - 1, crossed) if 0 <= at < len(mass))
    return _first(row, kept), border


def _best(scores: NDArray[np.float64], ids: NDArray[np.intp], *, border: float) -> SampledToken:
    """Return the best of ascending ids, ties to the lower id."""
    winner = int(scores.argmax())
    others = np.delete(scores, winner)
    gap = float(scores[winner] - others.max()) if len(others) else np.inf
    return SampledToken(id=int(ids[winner]), margin=min(gap, border))
