"""What one stage signs of one job: a leaf per window, and only where it agrees with the stage before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from plait.protocol.ids import HASH_ZERO, Hash
from plait.protocol.messages import Leaf
from plait.protocol.typed import Domain, Signed
from plait.protocol.windows import WINDOW_STEPS, Cut, Window, salted_root, window_root
from plait_node.commit.errors import DisagreementError, LeafError, RowOrderError
from plait_node.commit.rows import RowHashes

# `SigningGuard.sign` with this node's key; raises when something else was signed in the same place.
SignLeaf = Callable[[Leaf], Signed[Leaf]]


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowRoots:
    """The unsalted roots of one whole prompt window, as a prefix cache keeps them."""

    in_root: Hash
    out_root: Hash


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pending:
    """Hashes of rows not yet in a leaf; index 0 is step `start`."""

    start: int
    hashes: list[bytes]

    @property
    def end(self) -> int:
        return self.start + len(self.hashes)

    def extended(self, rows: RowHashes) -> None:
        if rows.start != self.end:
            raise RowOrderError(asked=rows.start, expected=self.end)
        self.hashes.extend(rows.hashes)


class StageCommitter:
    """Collects row hashes and upstream leaves, and signs each window once both are there.

    Nothing here waits: `sign_ready` returns what became signable since the last call.
    """

    def __init__(self, *, domain: Domain, sign: SignLeaf, salt_rows: bytes, job: Hash, stage: int, cut: Cut) -> None:
        self._domain = domain
        self._sign_leaf = sign
        self._salt = salt_rows
        self._job = job
        self._stage = stage
        self._cut = cut
        self._cached: Sequence[WindowRoots] = ()
        self._inputs = _Pending(start=cut.row, hashes=[])
        self._outputs = _Pending(start=cut.row, hashes=[])
        self._unsampled: dict[int, bytes] = {}
        self._upstream: list[Signed[Leaf]] = []
        self._end: int | None = None
        self.signed: list[Signed[Leaf]] = []
        self.kept: list[WindowRoots] = []  # of the prompt's whole windows signed so far, from the first on

    @property
    def steps(self) -> int:
        """Return how many steps are signed."""
        return self._at - self._cut.row

    @property
    def complete(self) -> bool:
        """Tell whether the job has ended and every window of it is signed."""
        return self._end is not None and self._at >= self._end

    @property
    def due(self) -> bool:
        """Tell whether all rows of the next window are there, as the cut has it; the leaf above it may be missing."""
        return self._outputs.end >= self._cut.close_at(self._at)

    @property
    def _at(self) -> int:
        return self.signed[-1].message.start + self.signed[-1].message.count if self.signed else self._cut.row

    def reuse(self, windows: Sequence[WindowRoots]) -> None:
        """Begin with cached windows; rows then begin after them. Call before any row."""
        if self.signed or self._inputs.hashes or self._cut.row:
            raise RowOrderError(asked=0, expected=self._inputs.end)
        start = WINDOW_STEPS * len(windows)
        if start >= self._cut.prompt_end:
            raise RowOrderError(asked=start, expected=self._cut.prompt_end - 1)
        self._cached = tuple(windows)
        self._inputs = _Pending(start=start, hashes=[])
        self._outputs = _Pending(start=start, hashes=[])

    def add_input(self, rows: RowHashes) -> None:
        """Take the hashes of the next rows received; raise `RowOrderError`."""
        self._inputs.extended(rows)

    def add_output(self, rows: RowHashes) -> None:
        """Take the hashes of the next rows computed; raise `RowOrderError`."""
        self._outputs.extended(rows)
        if rows.unsampled is not None:
            self._unsampled[rows.end - 1] = rows.unsampled

    def add_upstream(self, leaf: Signed[Leaf]) -> None:
        """Take the next leaf of the stage before, its signer checked by the caller; raise `LeafError`."""
        message = leaf.message
        if self._stage == 0 or message.job != self._job or message.stage != self._stage - 1:
            raise LeafError(f"a leaf of stage {message.stage} came where stage {self._stage - 1} of this job signs")
        if message.window != len(self._upstream):
            known = self._upstream[message.window] if message.window < len(self._upstream) else None
            what = "it is there twice with different content" if known not in (None, leaf) else "the order is broken"
            raise LeafError(f"window {message.window} of stage {message.stage}: {what}")
        previous = self._upstream[-1].digest(self._domain) if self._upstream else HASH_ZERO
        if message.prev_leaf != previous or message.print != HASH_ZERO:
            raise LeafError(f"window {message.window} of stage {message.stage}: its own chain of leaves is broken")
        self._upstream.append(leaf)

    def finish(self, step: int) -> None:
        """Say that no row at or after `step` belongs to the job: the last window closes there."""
        self._end = step
        for pending in (self._inputs, self._outputs):
            del pending.hashes[max(0, step - pending.start) :]

    def sign_ready(self) -> list[Signed[Leaf]]:
        """Sign every window whose rows and upstream leaf are there, in order.

        Raises `DisagreementError` or `LeafError` before anything of that window is signed, and whatever the guard
        raises when it knows of another signature in this place.
        """
        made: list[Signed[Leaf]] = []
        while (leaf := self.sign_next()) is not None:
            made.append(leaf)
        return made

    def sign_next(self) -> Signed[Leaf] | None:
        """Sign the next window if it is ready: `sign_ready` for callers that do other things in between."""
        window = self._next_window()
        if window is None:
            return None
        leaf = self._sign(window)
        self.signed.append(leaf)
        return leaf

    def _next_window(self) -> Window | None:
        start = self._at
        full = self._cut.close_at(start)
        stop = full if self._end is None else min(full, self._end)
        index = len(self.signed)
        if stop <= start or (index >= len(self._cached) and self._outputs.end < stop):
            return None
        if self._stage > 0 and index >= len(self._upstream):
            return None
        window = Window(index=index, start=start, count=stop - start)
        if self._stage > 0:
            above = self._upstream[index].message
            if self._end is None and above.start == start and above.count < window.count:
                return None  # the stage before has seen the end of the job, this one will
            if (above.start, above.count) != (start, window.count):
                raise LeafError(f"window {index} of stage {above.stage} covers other steps than the job's cut")
        return window

    def _sign(self, window: Window) -> Signed[Leaf]:
        roots = self._roots(window)
        upstream = self._upstream[window.index] if self._stage > 0 else None
        in_root = self._salted(self._stage, window, roots.in_root)
        if upstream is not None and in_root != upstream.message.out_root:
            raise DisagreementError(stage=self._stage, window=window.index)
        leaf = Leaf(
            job=self._job,
            stage=self._stage,
            window=window.index,
            start=window.start,
            count=window.count,
            in_root=in_root,
            out_root=self._salted(self._stage + 1, window, roots.out_root),
            up_leaf=HASH_ZERO if upstream is None else upstream.digest(self._domain),
            prev_leaf=self.signed[-1].digest(self._domain) if self.signed else HASH_ZERO,
            print=HASH_ZERO,
        )
        signed = self._sign_leaf(leaf)
        self._advance(window, roots)
        return signed

    def _salted(self, boundary: int, window: Window, root: Hash) -> Hash:
        return salted_root(self._salt, boundary=boundary, window=window.index, root=root)

    def _roots(self, window: Window) -> WindowRoots:
        if window.index < len(self._cached):
            return self._cached[window.index]
        inputs = self._inputs.hashes[: window.count]
        outputs = self._outputs.hashes[: window.count]
        return WindowRoots(in_root=window_root(inputs), out_root=window_root(outputs))

    def _advance(self, window: Window, roots: WindowRoots) -> None:
        if window.index < len(self._cached):
            self.kept.append(roots)
            return
        outputs = self._outputs.hashes[: window.count]
        if self._cut.row == 0 and window.count == WINDOW_STEPS and window.end <= self._cut.prompt_end:
            self._keep(window, roots, outputs)
        self._inputs = _Pending(start=window.end, hashes=self._inputs.hashes[window.count :])
        self._outputs = _Pending(start=window.end, hashes=self._outputs.hashes[window.count :])

    def _keep(self, window: Window, roots: WindowRoots, outputs: list[bytes]) -> None:
        unsampled = self._unsampled.pop(window.end - 1, None)
        if unsampled is None:
            self.kept.append(roots)
        else:
            plain = window_root([*outputs[:-1], unsampled])
            self.kept.append(WindowRoots(in_root=roots.in_root, out_root=plain))
