"""The stages' leaves as the worker gathers them: each checked when it comes, each window once it is whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plait.protocol.checks import NodeDirectory, check_leaf_chain, check_signer
from plait.protocol.commitments import id_bytes
from plait.protocol.errors import VerificationError
from plait.protocol.tree import Tree
from plait.protocol.windows import Cut, Window, leaf_data, row_hash, salted_root, window_root
from plait_node.worker.errors import StageFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from plait.protocol.ids import Address, Hash
    from plait.protocol.messages import Leaf, Request, Stage
    from plait.protocol.typed import Domain, Signed

_BETWEEN_TWO = ("upLeaf", "inRoot")


def blocks_of(stage: Stage) -> str:
    """Return a stage's blocks as people read them."""
    return f"{stage.first}-{stage.last - 1}"


class LeafBook:
    """Every stage's leaves of one job, in order; windows become whole one after the other."""

    def __init__(
        self,
        *,
        domain: Domain,
        directory: NodeDirectory,
        request: Request,
        job: Hash,
        route: Sequence[Stage],
        cut: Cut,
        salt_rows: bytes,
        token_at: Callable[[int], int],
    ) -> None:
        """Expect leaves of `route`; `token_at` tells the id that went into the first stage at a step."""
        self._domain = domain
        self._directory = directory
        self._request = request
        self._job = job
        self._route = route
        self._cut = cut
        self._salt_rows = salt_rows
        self._token_at = token_at
        self._stages: list[list[Signed[Leaf]]] = [[] for _ in route]
        self._tree = Tree()
        self.windows: list[Window] = []  # whole and checked
        self.last_step: int | None = None  # the first step that is no longer the job's, once known

    @property
    def end(self) -> int:
        """Return the first step without a leaf of every stage."""
        return self.windows[-1].end if self.windows else self._cut.row

    @property
    def complete(self) -> bool:
        """Tell whether the job has ended and every window of it is whole."""
        return self.last_step is not None and self.end >= self.last_step

    def root(self, window: Window) -> Hash:
        """Return the root over the leaves of all windows up to this one."""
        return self._tree.root(len(self._route) * (window.index + 1))

    def laggard(self) -> int:
        """Return the index of the stage that is furthest behind with its leaves."""
        counts = [len(stage) for stage in self._stages]
        return counts.index(min(counts))

    async def add(self, owner: Address, leaf: Signed[Leaf]) -> list[tuple[Window, list[Signed[Leaf]]]]:
        """Take a leaf from a stage; return the windows it made whole, with their leaves in route order.

        Raises `StageFailure` blaming whoever signed what cannot be.
        """
        index = leaf.message.stage
        if index >= len(self._route) or self._route[index].node != owner:
            raise self._blame(self._index_of(owner), "it sent a leaf of another stage")
        known = self._stages[index]
        if leaf.message.window < len(known) and known[leaf.message.window] == leaf:
            return []
        if leaf.message.window != len(known):
            raise self._blame(index, f"it signed window {leaf.message.window} where {len(known)} is next")
        try:
            await check_signer(
                self._domain, self._directory, leaf, owner=owner, request=self._request, check=f"leaf of stage {index}"
            )
        except VerificationError as error:
            raise self._blame(index, error.text) from error
        known.append(leaf)
        found: list[tuple[Window, list[Signed[Leaf]]]] = []
        while all(len(stage) > len(self.windows) for stage in self._stages):
            found.append(self._close_window())
        return found

    def _close_window(self) -> tuple[Window, list[Signed[Leaf]]]:
        window = self._next_window()
        leaves = [stage[window.index] for stage in self._stages]
        first = leaves[0].message
        if (first.start, first.count) == (window.start, window.count) and first.in_root != self._input_root(window):
            raise self._blame(0, f"window {window.index}: its input is not the ids it was sent")
        for index, leaf in enumerate(leaves):
            try:
                check_leaf_chain(
                    self._domain,
                    leaf.message,
                    job=self._job,
                    stage=index,
                    window=window,
                    upstream=leaves[index - 1] if index else None,
                    previous=self._stages[index][window.index - 1] if window.index else None,
                )
            except VerificationError as error:
                # Who of two neighbours sent the other something else than us nobody can tell: both are avoided.
                pair = index > 0 and error.check in _BETWEEN_TWO
                raise self._blame(index, error.text, other=index - 1 if pair else None) from error
        for leaf in leaves:
            self._tree.append(leaf_data(self._domain, leaf))
        self.windows.append(window)
        return window, leaves

    def _next_window(self) -> Window:
        start = self.end
        full = self._cut.close_at(start)
        stop = full if self.last_step is None else min(full, self.last_step)
        return Window(index=len(self.windows), start=start, count=stop - start)

    def _input_root(self, window: Window) -> Hash:
        rows = (row_hash(step, id_bytes(self._token_at(step))) for step in range(window.start, window.end))
        return salted_root(self._salt_rows, boundary=0, window=window.index, root=window_root(rows))

    def _index_of(self, owner: Address) -> int:
        return next((index for index, stage in enumerate(self._route) if stage.node == owner), 0)

    def _blame(self, index: int, reason: str, *, other: int | None = None) -> StageFailure:
        stage = self._route[index]
        accuser = None if other is None else self._route[other].node
        return StageFailure(stage.node, blocks_of(stage), reason, accuser=accuser)
