"""What drives every target: cases from valid messages with bytes or fields changed, and bounds on memory.

A target takes any bytes and says whether they were accepted; whatever else it does than refuse them by an error that it
declares is a finding. Cases come in rounds, each from a seed of its own, so that one round can be run again by itself.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice

import hypothesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

ROUND = 1_000
GROWTH_BYTES = 96 << 10  # what one more pass over the same cases may leave behind: caches that fill, never the cases
_REPLAYED = 60
_EDITS = ("flip", "set", "over", "over", "cut", "drop", "insert", "double", "join")
# Numbers at the ends of their range, digits that are not quite one, NaNs, and texts that are half of something.
_PIECES = (
    *(bytes(4), b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\0\0\0\1", b"\xff\xff\xff\xff\x0f"),
    *(b"9" * 30, b"-1", b"1e400", b"NaN", b"\\ud800", b'":{', b"\0\0\xc0\x7f", b"\xc0\xaf", b"\xe2\x80\xae"),
    *(b"h:0000070000", b"[]:80", b"a]:b:9", b"::1:0", b"http://x", b"i99999999999999999999e"),
)

Vary = Callable[[bytes, int, bytes], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One reader of strangers' bytes; `share` is its part of 1,000 cases, `peak` what one case may take, in bytes."""

    name: str
    run: Callable[[bytes], bool]
    seeds: Callable[[], Sequence[bytes]]
    share: int
    vary: Vary | None = None
    most: int = 600  # bytes of a case that begins as nothing
    peak: int = 4 << 20
    guided: bool = True  # may run under coverage guidance: it keeps no state and no loop
    close: Callable[[], None] = lambda: None


def fixed(seeds: Sequence[bytes]) -> Callable[[], Sequence[bytes]]:
    """Return what gives these seeds; a target that has to be started first makes its own."""
    return lambda: seeds


@dataclass(slots=True, kw_only=True)
class Ran:
    """What a run over a target did."""

    cases: int = 0
    accepted: int = 0
    kept: list[bytes] = field(default_factory=list[bytes])


class FindingError(AssertionError):
    """A target did something that it does not declare."""

    def __init__(self, target: str, seed: int, data: bytes, error: BaseException) -> None:
        """Keep the case in its smallest form."""
        super().__init__(
            f"{target}: {type(error).__name__}: {error}\n"
            f"again: python -m tests.fuzz --target {target} --bytes {data.hex() or '-'}\n"
            f"the round: python -m tests.fuzz --target {target} --cases {ROUND} --seed {seed}"
        )
        self.target, self.seed, self.data = target, seed, data


Edit = tuple[str, int, bytes]


def mutated(data: bytes, other: bytes, edits: Sequence[Edit]) -> bytes:
    """Return the bytes after some edits; `other` is another valid message to join."""
    made = bytearray(data)
    for kind, place, piece in edits:
        at = place % (len(made) + 1)
        match kind:
            case "flip" if at < len(made):
                made[at] ^= 1 << place // 7 % 8
            case "set" if at < len(made):
                made[at] = place // 5 % 256
            case "over":
                made[at : at + len(piece)] = piece
            case "cut":
                del made[at:]
            case "drop":
                del made[at : at + len(piece)]
            case "insert":
                made[at:at] = piece
            case "double":
                made[at:at] = made[at : at + 40]
            case _:
                made[at:] = other[place % (len(other) + 1) :]
    return bytes(made)


def cases(target: Target) -> st.SearchStrategy[bytes]:
    """Return what a target is tried with."""
    known = target.seeds()
    # By number: a strategy that is asked what it is would write all of them out.
    seeds = st.integers(0, len(known) - 1).map(lambda at: known[at])
    piece = st.binary(min_size=1, max_size=12) | st.sampled_from(_PIECES)
    edits = st.lists(st.tuples(st.sampled_from(_EDITS), st.integers(0, 1 << 16), piece), min_size=1, max_size=4)
    kinds = [st.binary(max_size=target.most), st.builds(mutated, seeds, seeds, edits)]
    if target.vary is not None:
        kinds += [st.builds(target.vary, seeds, st.integers(0, 1 << 16), st.binary(max_size=40) | piece)]
    return st.one_of(kinds)


def run_round(target: Target, count: int, *, seed: int) -> Ran:
    """Try a target with `count` cases; raise `FindingError` with the smallest that it fails at."""
    ran, last = Ran(), b""

    @hypothesis.seed(seed)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    @given(cases(target))
    def once(data: bytes) -> None:
        nonlocal last
        last = data
        ran.cases += 1
        ran.accepted += target.run(data)
        if len(ran.kept) < _REPLAYED:
            ran.kept.append(data)

    try:
        once()
    except Exception as error:
        raise FindingError(target.name, seed, last, error) from error
    return ran


def run_cases(target: Target, count: int, *, seed: int) -> Ran:
    """Try a target with at least `count` cases in rounds; raise `FindingError`."""
    total = Ran()
    while total.cases < count:
        ran = run_round(target, min(ROUND, count - total.cases), seed=seed)
        total.cases += ran.cases
        total.accepted += ran.accepted
        total.kept = ran.kept
        seed += 1
    return total


def check_memory(target: Target, kept: Sequence[bytes]) -> None:
    """Run some cases again and again; raise `AssertionError` when that leaves something behind, or one takes a lot."""
    again = [*islice(target.seeds(), 20), *kept]
    _pass(target, again)  # fills caches
    tracemalloc.start()
    try:
        _pass(target, again)
        before = _kept_bytes()
        tracemalloc.reset_peak()
        _pass(target, again)
        peak = tracemalloc.get_traced_memory()[1]
        grown = _kept_bytes() - before
    finally:
        tracemalloc.stop()
    assert grown < GROWTH_BYTES, f"{target.name}: {len(again)} cases left {grown} bytes behind"
    assert peak - before < target.peak, f"{target.name}: one case took {peak - before} bytes"


def _pass(target: Target, again: Sequence[bytes]) -> None:
    for data in again:
        target.run(data)


def _kept_bytes() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]
