"""One attempt's windows as the gateway follows them: whole, in order, signed by the route, under one root."""

from __future__ import annotations

from collections.abc import Sequence

from plait.protocol.checks import NodeDirectory, check_leaf_chain, check_signer
from plait.protocol.errors import VerificationError
from plait.protocol.ids import Hash
from plait.protocol.messages import Job, Leaf, Progress, Request
from plait.protocol.tree import Tree
from plait.protocol.typed import Domain, Signed, struct_hash
from plait.protocol.windows import WINDOW_STEPS, Cut, Window, leaf_data, progress_to


class Attempt:
    """A Job that was accepted, and how far its progress has come."""

    def __init__(self, signed: Signed[Job], request: Request) -> None:
        self.signed = signed
        self.job = signed.message
        self.struct_hash: Hash = struct_hash(signed.message)
        self.progress: Signed[Progress] | None = None
        self.windows = 0
        self._request = request
        self._cut = Cut(prompt_end=request.input_tokens + self.job.start, row=self.job.row)
        self._end = self.job.row
        self._closed = False
        self._tree = Tree()
        self._last: Sequence[Signed[Leaf]] = ()

    @property
    def end(self) -> int:
        """Return the first step without a leaf of every stage."""
        return self._end

    @property
    def paid_output(self) -> int:
        """Return the output tokens of this attempt that are owed."""
        return self.progress.message.to - self.job.start if self.progress else 0

    @property
    def surely_over(self) -> bool:
        """Say whether no token can follow the last progress: the limit is reached, or a window closed early."""
        return self.progress is not None and (self._closed or self.progress.message.to >= self._request.max_tokens)

    async def accept(
        self, signed: Signed[Progress], leaves: Sequence[Signed[Leaf]], *, domain: Domain, directory: NodeDirectory
    ) -> None:
        """Check the new windows' leaves and the progress over them; raise `VerificationError`."""
        stages = len(self.job.route)
        if not leaves or len(leaves) % stages:
            raise VerificationError("leaves", f"a progress brings whole windows of {stages} leaves each")
        for at in range(0, len(leaves), stages):
            await self._accept_window(leaves[at : at + stages], domain, directory)
        progress = signed.message
        to = progress_to(
            prompt_end=self._cut.prompt_end,
            input_tokens=self._request.input_tokens,
            start=self.job.start,
            window_end=self._end,
        )
        if progress.to != to or to > self._request.max_tokens:
            raise VerificationError("progress", f"it counts {progress.to} tokens where {to} are covered")
        if progress.leaves != self._tree.root():
            raise VerificationError("leaves", "the root is not over the leaves that came")
        await check_signer(domain, directory, signed, owner=self.job.worker, request=self._request, check="progress")
        self.progress = signed

    async def _accept_window(self, leaves: Sequence[Signed[Leaf]], domain: Domain, directory: NodeDirectory) -> None:
        window = self._next(leaves[0].message)
        upstream: Signed[Leaf] | None = None
        for index, leaf in enumerate(leaves):
            check_leaf_chain(
                domain,
                leaf.message,
                job=self.struct_hash,
                stage=index,
                window=window,
                upstream=upstream,
                previous=self._last[index] if self._last else None,
            )
            owner = self.job.route[index].node
            await check_signer(domain, directory, leaf, owner=owner, request=self._request, check="leaf")
            upstream = leaf
        for leaf in leaves:
            self._tree.append(leaf_data(domain, leaf))
        self._last = tuple(leaves)
        self.windows, self._end = window.index + 1, window.end
        self._closed = window.end != self._cut.close_at(window.start)

    def _next(self, leaf: Leaf) -> Window:
        if self._closed:
            raise VerificationError("leaf", "a window follows the one that ended the answer")
        count = self._cut.close_at(self._end) - self._end
        if self._end >= self._cut.prompt_end and 1 <= leaf.count < min(count, WINDOW_STEPS):
            count = leaf.count  # the answer's last window may end early
        return Window(index=self.windows, start=self._end, count=count)
