"""L0: what the SDK checks of every answer, always, before it signs another voucher. It fails closed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from plait.protocol import checks
from plait.protocol.checks import NodeDirectory, ServiceKeyInfo, check_job, check_leaf_chain, check_quote, check_signer
from plait.protocol.choice import ChoiceNote
from plait.protocol.commitments import RunningHash, id_bytes, prompt_commitment, stop_commitment
from plait.protocol.errors import SealingError, VerificationError
from plait.protocol.ids import Address, Hash, to_hex
from plait.protocol.manifest import Manifest
from plait.protocol.messages import Finish, Job, Leaf, Progress, Quote, Receipt, Request, Terms
from plait.protocol.money import job_price
from plait.protocol.sealing import AnswerOpener, ContentKey, Note
from plait.protocol.tokens import Decodes
from plait.protocol.tree import Tree
from plait.protocol.typed import Domain, Signed, digest, struct_hash
from plait.protocol.windows import Cut, Window, leaf_data, progress_to, row_hash, salted_root, window_root

__all__ = [
    "AnswerVerifier",
    "NodeDirectory",
    "ServiceKeyInfo",
    "Verification",
    "check_job",
    "check_leaf_chain",
    "check_quote",
    "check_signer",
]

L0_CHECKS = (
    "quote and prekeys signed",
    "job record signed, against quote and chain",
    "route tiles the model",
    "leaves signed by the route's nodes",
    "leaf chains joined",
    "input rows of the first stage recomputed",
    "leaves root",
    "running hash",
    "progress signed",
    "receipt signed",
    "price recomputed",
    "finish reason",
    "text is how the token ids decode",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """How far an answer was checked, by which checks, over how much."""

    level: str
    checks: tuple[str, ...]
    statistic: dict[str, int] = field(hash=False)


@dataclass(slots=True, kw_only=True, eq=False)
class _Attempt:
    """One Job as the verifier follows it."""

    signed: Signed[Job]
    struct_hash: Hash
    cut: Cut
    opener: AnswerOpener
    tree: Tree = field(default_factory=Tree)  # over leaf digests ‖ signatures
    last_leaves: list[Signed[Leaf]] = field(default_factory=list[Signed[Leaf]])  # of each stage
    windows: int = 0
    end: int = 0  # first step without a leaf
    closed: bool = False  # a window ended early: none may follow
    progress: Signed[Progress] | None = None
    note: ChoiceNote | None = None


class AnswerVerifier:
    """Follows one request's events in order; every `accept_` raises `VerificationError` and is then final."""

    def __init__(
        self,
        *,
        domain: Domain,
        directory: NodeDirectory,
        content_key: ContentKey,
        quote: Quote,
        request: Request,
        prompt_ids: Sequence[int],
        stop: Sequence[str],
        manifest: Manifest,
        tokenizer: Decodes,
    ) -> None:
        self._domain, self._directory, self._key = domain, directory, content_key
        self._quote, self._request, self._manifest = quote, request, manifest
        self._tokenizer, self._stop = tokenizer, list(stop)
        self._check_own(prompt_ids)
        self.request = digest(domain, request)
        self.receipt: Signed[Receipt] | None = None
        self._prompt = list(prompt_ids)
        self._ids: list[int] = []
        self._running = RunningHash(content_key, self.request)
        self._hashes: list[Hash] = [self._running.value]  # after 0, 1, 2 ... tokens
        self._salt_rows = content_key.salt("rows")
        self._attempts: list[_Attempt] = []
        self._failed: VerificationError | None = None
        self._signatures = 0

    @property
    def ids(self) -> tuple[int, ...]:
        """Return the token ids delivered so far, verified or not yet."""
        return tuple(self._ids)

    @property
    def job(self) -> Job | None:
        """Return the last accepted job record."""
        return self._attempts[-1].signed.message if self._attempts else None

    @property
    def note(self) -> ChoiceNote | None:
        """Return the last Job's method, prediction and reason, once they came."""
        return self._attempts[-1].note if self._attempts else None

    @property
    def windows(self) -> int:
        """Return how many windows have passed, over all attempts."""
        return sum(attempt.windows for attempt in self._attempts)

    @property
    def verified(self) -> int:
        """Return how many output tokens are covered by a checked Progress (`Pay.to`)."""
        return max((each.progress.message.to for each in self._attempts if each.progress), default=0)

    @property
    def segments(self) -> tuple[Hash, ...]:
        """Return the struct hash of the last Progress of each attempt that has one."""
        return tuple(struct_hash(each.progress.message) for each in self._attempts if each.progress)

    @property
    def closed(self) -> tuple[tuple[Job, int, int], ...]:
        """Return each attempt's job, the first step it has no leaf for, and how many windows it closed."""
        return tuple((each.signed.message, each.end, each.windows) for each in self._attempts if each.progress)

    @property
    def paid_output(self) -> int:
        """Return how many output tokens are owed for."""
        return sum(
            attempt.progress.message.to - attempt.signed.message.start for attempt in self._attempts if attempt.progress
        )

    def due(self) -> int:
        """Return the price of all that passed so far, in base units."""
        terms = self._terms()
        if terms is None or not any(attempt.progress for attempt in self._attempts):
            return 0
        return job_price(terms, input_tokens=self._request.input_tokens, output_tokens=self.paid_output)

    async def accept_job(self, signed: Signed[Job]) -> None:
        """Check a job record: attempt, worker, route, profile, where it starts, signature."""
        with _Final(self):
            job = signed.message
            check_job(self._quote, self._request, job, request_digest=self.request, blocks=self._manifest.blocks)
            self._check_attempt(job)
            await self._signed_by(signed, job.worker, "job")
            for node in {job.worker, *(stage.node for stage in job.route)}:
                if not await self._directory.active(node):
                    raise VerificationError("job", f"node {to_hex(node)} has no stake or is jailed")
            hashed = struct_hash(job)
            cut = Cut(prompt_end=self._request.input_tokens + job.start, row=job.row)
            opener = AnswerOpener(self._key, request=self.request, job=hashed)
            self._attempts.append(_Attempt(signed=signed, struct_hash=hashed, cut=cut, opener=opener, end=job.row))

    def accept_chunk(self, job: Hash, sealed: bytes) -> tuple[int, ...] | ChoiceNote:
        """Open the next chunk; return its ids, or the note that closes the Job's answer."""
        with _Final(self):
            attempt = self._current(job)
            try:
                opened = attempt.opener.open(sealed)
                if isinstance(opened, Note):
                    return self._accept_note(attempt, opened)
            except SealingError as error:
                raise VerificationError("chunk", error.text) from error
            self._check_ids(opened)
            for token in opened:
                self._ids.append(token)
                self._hashes.append(self._running.extend((token,)))
            return opened

    async def accept_progress(self, signed: Signed[Progress], leaves: Sequence[Signed[Leaf]]) -> None:
        """Check the new windows' leaves, recompute the first stage's input, and the Progress over them."""
        with _Final(self):
            progress = signed.message
            attempt = self._current(progress.job)
            job = attempt.signed.message
            stages = len(job.route)
            if not leaves or len(leaves) % stages:
                raise VerificationError("leaves", f"a progress brings whole windows of {stages} leaves each")
            for at in range(0, len(leaves), stages):
                await self._accept_window(attempt, leaves[at : at + stages])
            to = progress_to(
                prompt_end=attempt.cut.prompt_end,
                input_tokens=self._request.input_tokens,
                start=job.start,
                window_end=attempt.end,
            )
            if progress.to != to or to > len(self._ids):
                raise VerificationError("progress", f"it counts {progress.to} tokens where {to} are covered")
            if progress.tokens != self._hashes[to]:
                raise VerificationError("tokens", "the running hash is not that of the delivered tokens")
            if progress.leaves != attempt.tree.root():
                raise VerificationError("leaves", "the root is not over the leaves that came")
            await self._signed_by(signed, job.worker, "progress")
            attempt.progress = signed

    async def accept_receipt(self, signed: Signed[Receipt]) -> None:
        """Check the receipt against everything delivered; nothing may follow it."""
        with _Final(self):
            if self.receipt is not None or not self._attempts:
                raise VerificationError("receipt", "it comes after another one, or before any job record")
            receipt, request = signed.message, self._request
            expected = {
                "request": (receipt.request, self.request),
                "segments": (receipt.segments, self.segments),
                "inputTokens": (receipt.input_tokens, request.input_tokens),
                "outputTokens": (receipt.output_tokens, self.verified),
                "tokens": (receipt.tokens, self._hashes[self.verified]),
                "price": (receipt.price, self.due()),
                "closesAt": (receipt.closes_at, checks.closes_at(request)),
            }
            for name, (said, found) in expected.items():
                if said != found:
                    raise VerificationError("receipt", f"its {name} is not what was delivered under the quote")
            self._check_finish(receipt)
            await self._signed_by(signed, self._attempts[-1].signed.message.worker, "receipt")
            self.receipt = signed

    def check_text(self, text: str) -> None:
        """Check that a text is how the delivered ids decode."""
        with _Final(self):
            if self._tokenizer.decode(self._ids) != text:
                raise VerificationError("text", "the text is not how the delivered token ids decode")

    def report(self) -> Verification:
        """Return what was checked; raise unless the receipt was accepted and nothing failed."""
        if self._failed is not None:
            raise self._failed
        if self.receipt is None:
            raise VerificationError("receipt", "the answer has not ended yet")
        statistic = {
            "tokens": len(self._ids),
            "windows": self.windows,
            "leaves": sum(len(attempt.tree) for attempt in self._attempts),
            "signatures": self._signatures,
            "attempts": len(self._attempts),
        }
        return Verification(level="L0", checks=L0_CHECKS, statistic=statistic)

    def fail(self, error: VerificationError) -> None:
        """Keep the first failure: nothing is accepted after it."""
        self._failed = self._failed or error

    def ensure_sound(self) -> None:
        """Raise the first failure, if there was one."""
        if self._failed is not None:
            raise self._failed

    async def _accept_window(self, attempt: _Attempt, leaves: Sequence[Signed[Leaf]]) -> None:
        window = self._next_window(attempt, leaves[0].message)
        job, upstream = attempt.signed.message, None
        for index, leaf in enumerate(leaves):
            previous = attempt.last_leaves[index] if attempt.last_leaves else None
            check_leaf_chain(
                self._domain,
                leaf.message,
                job=attempt.struct_hash,
                stage=index,
                window=window,
                upstream=upstream,
                previous=previous,
            )
            await self._signed_by(leaf, job.route[index].node, "leaf")
            upstream = leaf
        if leaves[0].message.in_root != self._input_root(window):
            raise VerificationError("inRoot", f"window {window.index}: the route did not compute from these tokens")
        for leaf in leaves:
            attempt.tree.append(leaf_data(self._domain, leaf))
        attempt.last_leaves = list(leaves)
        attempt.windows, attempt.end = window.index + 1, window.end
        attempt.closed = window.end != attempt.cut.close_at(window.start)

    def _next_window(self, attempt: _Attempt, leaf: Leaf) -> Window:
        if attempt.closed or self.receipt is not None:
            raise VerificationError("leaf", "a window follows the one that ended the answer")
        start, full = attempt.end, attempt.cut.close_at(attempt.end)
        count = full - start
        if start >= attempt.cut.prompt_end and 1 <= leaf.count < count:
            count = leaf.count  # the answer's last window may end early
        known = self._request.input_tokens + len(self._ids)
        if start + count > known:
            raise VerificationError("leaf", f"window {attempt.windows} covers steps whose tokens were not delivered")
        return Window(index=attempt.windows, start=start, count=count)

    def _input_root(self, window: Window) -> Hash:
        rows = (row_hash(step, id_bytes(self._token_at(step))) for step in range(window.start, window.end))
        return salted_root(self._salt_rows, boundary=0, window=window.index, root=window_root(rows))

    def _token_at(self, step: int) -> int:
        count = len(self._prompt)
        return self._prompt[step] if step < count else self._ids[step - count]

    def _accept_note(self, attempt: _Attempt, note: Note) -> ChoiceNote:
        found = ChoiceNote.from_note(note)
        if found.choice != attempt.signed.message.choice:
            raise VerificationError("choice", "the note's method is not the one in the job record")
        attempt.note = found
        return found

    def _check_own(self, prompt_ids: Sequence[int]) -> None:
        request = self._request
        if request.model != self._manifest.model_id:
            raise VerificationError("model", "the manifest is not that of the request's model")
        if len(prompt_ids) != request.input_tokens or request.prompt != prompt_commitment(self._key, prompt_ids):
            raise VerificationError("prompt", "these token ids are not what the request commits to")
        if request.sampling.stop != stop_commitment(self._key, self._stop):
            raise VerificationError("stop", "these stop strings are not what the request commits to")

    def _check_attempt(self, job: Job) -> None:
        if self.receipt is not None:
            raise VerificationError("job", "it comes after the receipt")
        before = self._attempts[-1].signed.message if self._attempts else None
        if before is not None and (job.attempt <= before.attempt or job.profile != before.profile):
            raise VerificationError("job", "a later job has a higher attempt and the first one's profile")
        if job.start != len(self._ids) or job.tokens != self._hashes[-1]:
            raise VerificationError("job", "it does not start from the tokens that were delivered")
        if job.row:
            self._check_replacement(job)

    def _check_replacement(self, job: Job) -> None:
        """Check a job that goes on where every stage of the one before it had signed."""
        before = self._attempts[-1] if self._attempts else None
        if before is None or before.signed.message.worker != job.worker or before.end != job.row:
            raise VerificationError("job", "it goes on behind other windows than its worker's last job closed")

    def _check_ids(self, ids: Sequence[int]) -> None:
        if self.receipt is not None or len(self._ids) + len(ids) > self._request.max_tokens:
            raise VerificationError("chunk", f"more than {self._request.max_tokens} tokens, or some after the receipt")
        if any(token >= self._manifest.vocabulary for token in ids):
            raise VerificationError("chunk", "a token id lies outside the model's vocabulary")
        ends = self._manifest.end_tokens
        if (self._ids and self._ids[-1] in ends) or any(token in ends for token in ids[:-1]):
            raise VerificationError("chunk", "a token follows the end token")

    def _check_finish(self, receipt: Receipt) -> None:
        last = self._ids[-1] if self._ids else None
        ended = last in self._manifest.end_tokens
        whole = receipt.output_tokens == len(self._ids) and bool(self._ids)
        right = {
            Finish.STOP: whole and ended,
            Finish.LENGTH: whole and not ended and receipt.output_tokens == self._request.max_tokens,
            Finish.STOP_STRING: whole and self._has_stop_string(),
            Finish.CANCELLED: True,
            Finish.FAILED: True,
        }.get(receipt.finish, False)
        if not right:
            raise VerificationError("finish", f"finish {receipt.finish} is not how the delivered tokens end")

    def _has_stop_string(self) -> bool:
        text = self._tokenizer.decode(self._ids)
        return any(stop in text for stop in self._stop)

    def _current(self, job: Hash) -> _Attempt:
        if not self._attempts or self._attempts[-1].struct_hash != job:
            raise VerificationError("job", "this belongs to no job record, or not to the latest")
        return self._attempts[-1]

    def _terms(self) -> Terms | None:
        return checks.terms_of(self._quote, self._attempts[0].signed.message.profile) if self._attempts else None

    async def _signed_by(self, signed: Signed[Any], owner: Address, check: str) -> None:
        await check_signer(self._domain, self._directory, signed, owner=owner, request=self._request, check=check)
        self._signatures += 1


class _Final:
    """Makes the first failure, of whatever kind, the last thing a verifier does."""

    def __init__(self, verifier: AnswerVerifier) -> None:
        self._verifier = verifier

    def __enter__(self) -> None:
        self._verifier.ensure_sound()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, VerificationError):
            self._verifier.fail(error)
        elif error is not None:
            self._verifier.fail(VerificationError("interrupted", "a check did not run to its end; ask again"))
