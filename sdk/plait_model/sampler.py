"""Draw one token exactly as PROTOCOL section 7 says, so that anyone can draw it again."""

from __future__ import annotations

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
    x = _checked(logits)
    if sampling.temperature == 0:
        return _best(x, np.arange(len(x)), border=np.inf)
    _check_range(position, sampling)
    x = x / (sampling.temperature / _MILLION)
    border = np.inf
    if sampling.top_k or sampling.top_p < _MILLION:
        kept = _first(x, sampling.top_k)
        if sampling.top_p < _MILLION:
            kept, border = _nucleus(x, kept, sampling.top_p)
    else:
        kept = np.arange(len(x))
    return _best(x[kept] + gumbel(seed, request, position, len(x))[kept], kept, border=border)


def gumbel(seed: Hash, request: Hash, position: int, size: int) -> NDArray[np.float64]:
    """Return the Gumbel noise of one position, one value per row of the output head."""
    # Plain integers: numpy would take lists through floats and lose bits.
    key = int.from_bytes(keccak(seed, request)[:16], "little")
    raw = np.random.Philox(key=key, counter=position << 128).random_raw(size)
    u = ((raw >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
    return -np.log(-np.log(u))


def _check_range(position: int, sampling: Sampling) -> None:
    if not 0 < sampling.top_p <= _MILLION:
        raise SamplingRangeError(f"topP is {sampling.top_p} millionths; give 1 to {_MILLION}")
    if not 0 <= position < 2**32:
        raise SamplingRangeError(f"output position {position} is outside 0 to 2**32 - 1; give the absolute position")


def _checked(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    x = np.asarray(logits, dtype=np.float64)
    if x.ndim != 1 or len(x) == 0:
        raise BadLogitsError(f"logits have shape {x.shape}; one row of the output head is needed")
    best = x.max()  # NaN wins every comparison that max makes
    if not np.isfinite(best):
        raise BadLogitsError(f"the best logit is {best}; the job fails, run it on another stage")
    return x


def _first(x: NDArray[np.float64], top_k: int) -> NDArray[np.intp]:
    """Return the ids of the first topK, best first, ties to the lower id."""
    ids = np.arange(len(x))
    if 0 < top_k < len(x):
        # Whatever ties with the last place has to take part in the stable sort, which then favours the lower id.
        ids = np.flatnonzero(x >= np.partition(x, len(x) - top_k)[len(x) - top_k])
    order = ids[np.argsort(-x[ids], kind="stable")]
    return order[:top_k] if top_k else order


def _nucleus(x: NDArray[np.float64], kept: NDArray[np.intp], top_p: int) -> tuple[NDArray[np.intp], float]:
    mass = np.cumsum(np.exp(x[kept] - x[kept[0]]))
    reached = mass * _MILLION >= top_p * mass[-1]
    border = float(np.abs(mass / mass[-1] - top_p / _MILLION).min())
    return kept[: int(np.argmax(reached)) + 1], border


def _best(scores: NDArray[np.float64], ids: NDArray[np.intp], *, border: float) -> SampledToken:
    best = scores.max()
    winner = int(ids[scores == best].min())
    others = scores[ids != winner]
    gap = float(best - others.max()) if len(others) else np.inf
    return SampledToken(id=winner, margin=min(gap, border))
