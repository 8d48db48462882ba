"""Answer requests with engines in this process, one behind the other: a counted link, no signatures, every method.

What benches, tests and the selector's measurements run. Each pass takes prompt rows and decode rows of all running jobs
through every engine, then draws each job's next tokens (PROTOCOL section 7) and checks what was proposed for it.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from plait.protocol.ids import Hash, keccak
from plait.protocol.messages import Sampling
from plait.protocol.windows import WINDOW_STEPS
from plait_model.sampler import SampledToken, sample
from plait_node.engine.errors import BadRowsError, NoRoomError
from plait_node.engine.faces import StepInput, StepOutput
from plait_node.engine.local_link import LocalLink, Ring
from plait_node.engine.methods.base import STRICT, Facts, Proposer
from plait_node.engine.methods.chunked_prefill import chunks
from plait_node.engine.methods.compiled import find_compiler
from plait_node.engine.methods.continuous_batching import jobs_to_start
from plait_node.engine.methods.draft_model import DraftModel
from plait_node.engine.methods.prefix_cache import prefix_keys, salted_lineage, window_roots
from plait_node.engine.methods.prompt_lookup import PromptLookup
from plait_node.engine.methods.registry import check
from plait_node.engine.methods.wire_codec import codec_pair
from plait_node.engine.stage_engine import StageEngine

__all__ = ["Answer", "LocalRequest", "LocalRoute"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalRequest:
    """One prompt and how it is to be answered; `request` names the job and goes into the draw."""

    request: Hash
    prompt: Sequence[int]
    max_tokens: int
    sampling: Sampling
    seed: Hash
    end_tokens: frozenset[int] = frozenset()
    salt: bytes = b""  # the payer's: prefixes are shared under the same one only
    after: int = 0  # passes of the run before it arrives


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The tokens, an end token included, and how they came; times are seconds since the request arrived."""

    ids: tuple[int, ...]
    margins: tuple[float, ...]  # how far each token won, see `SampledToken`
    times: tuple[float, ...]
    proposed: int
    accepted: int
    reused: int  # prompt rows taken from cached prefixes

    @property
    def first_token_s(self) -> float:
        """Return when the first token was there."""
        return self.times[0]

    @property
    def gaps_s(self) -> tuple[float, ...]:
        """Return the time from each token to the next; 0 where one pass gave both."""
        return tuple(later - earlier for earlier, later in pairwise(self.times))

    @property
    def longest_gap_s(self) -> float:
        """Return the longest time that a running stream stood still."""
        return max(self.gaps_s, default=0.0)


class LocalRoute:
    """Engines that hold all blocks of one model, in order."""

    def __init__(
        self,
        engines: Sequence[StageEngine],
        *,
        profile: str = STRICT,
        draft: StageEngine | None = None,
        margins: bool = True,
        clock: Callable[[], float] = time.perf_counter,
        link: LocalLink | None = None,
    ) -> None:
        """Take over the engines; `draft` is a small whole model for draft-model, `clock` counts seconds.

        What `link` would have taken is added to what the clock says, not slept; drafting needs no link.
        Without `margins`, greedy tokens are picked where the logits lie, and their margins are given as NaN.

        Raises:
            ValueError: the engines do not follow each other from block 0 to the last, or differ in their model.
        """
        self._ring = Ring(list(engines), link or LocalLink(), clock)
        self._profile = profile
        self._draft = draft
        self._margins = margins

    @property
    def waited_s(self) -> float:
        """Return the seconds that all runs so far would have spent on the link; no clock but the route's has them."""
        return self._ring.waited_s

    @property
    def facts(self) -> Facts:
        """Return what decides which methods may be used here."""
        head = self._ring.engines[0]
        own = head.manifest.vocabulary
        return Facts(
            device=head.lane.device,
            compiler=find_compiler(),
            weights=head.lane.weights,
            fused=frozenset({head.lane.weights}),
            whole_model=len(self._ring.engines) == 1,
            profile=self._profile,
            draft_model=self._draft is not None and self._draft.manifest.vocabulary == own,
        )

    def run(self, requests: Sequence[LocalRequest], methods: Mapping[str, int] | None = None) -> list[Answer]:
        """Answer all requests, in the order given; without continuous-batching one after the other.

        Raises:
            MethodRefusedError: these methods cannot run here, or not together.
            ValueError: an empty prompt, no token asked for, or two requests of one name.
            NoRoomError: a request needs more steps than the engines have.
            EngineError, ModelError, TensorError: what computing, drawing or a codec raised; every job is closed then.
        """
        chosen = methods or {}
        _check_requests(requests)
        check(chosen, self.facts)
        run = _Run(self._ring, self._draft, self._profile, chosen, margins=self._margins)
        try:
            return run.answer(requests)
        finally:
            run.close()


@dataclass(slots=True, kw_only=True)
class _Job:
    """A request on its way: `ids` is prompt and answer, of which the engines hold the rows before `computed`."""

    asked: LocalRequest
    ids: list[int]
    arrived: float
    proposer: Proposer | None = None
    keys: list[list[Hash]] = field(default_factory=list[list[Hash]])  # per engine, one a window
    computed: int = 0
    margins: list[float] = field(default_factory=list[float])
    times: list[float] = field(default_factory=list[float])
    proposed: int = 0
    accepted: int = 0
    reused: int = 0

    @property
    def id(self) -> Hash:
        return self.asked.request

    @property
    def room(self) -> int:
        return len(self.asked.prompt) + self.asked.max_tokens

    @property
    def beginning(self) -> object:
        """Return what prompts that could share a prefix have in common: payer and first window; None if too short."""
        first = tuple(self.asked.prompt[:WINDOW_STEPS])
        return (self.asked.salt, first) if len(self.asked.prompt) > WINDOW_STEPS else None

    @property
    def prefilling(self) -> bool:
        return self.computed < len(self.asked.prompt)

    @property
    def done(self) -> bool:
        drawn = len(self.margins)
        return drawn == self.asked.max_tokens or (drawn > 0 and self.ids[-1] in self.asked.end_tokens)

    def take(self, output: StepOutput, index: int) -> None:
        """Draw the next token from the row of this index among those that the head ran over."""
        if output.best is not None:
            drawn = SampledToken(id=int(output.best[index]), margin=math.nan)
        elif output.logits is not None:
            drawn = sample(
                output.logits[index],
                seed=self.asked.seed,
                request=self.asked.request,
                position=len(self.margins),
                sampling=self.asked.sampling,
            )
        else:
            raise BadRowsError("the last engine gave nothing to draw from")
        self.ids.append(drawn.id)
        self.margins.append(drawn.margin)

    @property
    def fresh(self) -> int:
        """Return how many tokens were drawn and have no time yet."""
        return len(self.margins) - len(self.times)

    def stamp(self, at: float) -> None:
        """Give the tokens drawn last the time when they were there."""
        self.times += [at - self.arrived] * self.fresh

    def answer(self) -> Answer:
        return Answer(
            ids=tuple(self.ids[len(self.asked.prompt) :]),
            margins=tuple(self.margins),
            times=tuple(self.times),
            proposed=self.proposed,
            accepted=self.accepted,
            reused=self.reused,
        )


class _Run:
    """One run: who waits, who runs, and the passes."""

    def __init__(
        self,
        ring: Ring,
        draft: StageEngine | None,
        profile: str,
        chosen: Mapping[str, int],
        *,
        margins: bool,
    ) -> None:
        self._margins = margins
        self._ring = ring
        self._engines = ring.engines
        self._draft = draft
        self._codecs = codec_pair(chosen)
        # A prefix computed from rows in one codec is none for another.
        self._profile = keccak(f"{profile} {self._codecs.prefill} {self._codecs.decode}".encode())
        self._most_jobs = chosen.get("continuous-batching", 1)
        self._budget = chosen.get("chunked-prefill")
        self._lookup = chosen.get("prompt-lookup", 0)
        self._ahead = chosen.get("draft-model", 0)
        self._reuse = "prefix-cache" in chosen
        self._coming: deque[LocalRequest] = deque()
        self._waiting: deque[_Job] = deque()
        self._running: list[_Job] = []

    def answer(self, requests: Sequence[LocalRequest]) -> list[Answer]:
        """Run until every request is answered."""
        self._coming.extend(sorted(requests, key=lambda asked: asked.after))
        answers: dict[Hash, Answer] = {}
        passes = 0
        while self._coming or self._waiting or self._running:
            # Where nothing runs, nothing else could make the next request arrive.
            idle = not self._waiting and not self._running
            while self._coming and (idle or self._coming[0].after <= passes):
                asked, idle = self._coming.popleft(), False
                self._waiting.append(_Job(asked=asked, ids=list(asked.prompt), arrived=self._ring.now()))
            self._start_jobs()
            self._pass()
            passes += 1
            for job in [job for job in self._running if job.done]:
                answers[job.id] = job.answer()
                self._end(job)
        return [answers[asked.request] for asked in requests]

    def close(self) -> None:
        """Close whatever still runs."""
        for job in list(self._running):
            self._end(job)

    def _start_jobs(self) -> None:
        """Start what waits, in order; a prompt whose beginning is being computed waits for that, and takes it over."""
        alike = {job.beginning for job in self._running if job.prefilling} if self._reuse else set[object]()
        for job in list(self._waiting):
            free = min(engine.free_steps for engine in self._engines)
            if self._ahead and self._draft:
                free = min(free, self._draft.free_steps)
            if not jobs_to_start(running=len(self._running), most=self._most_jobs, rooms=[job.room], free=free):
                if not self._running:
                    raise NoRoomError(asked=job.room, limit=free)
                return
            if job.beginning in alike and job.beginning is not None:
                continue
            self._waiting.remove(job)
            self._start(job)
            if self._reuse and job.prefilling:
                alike.add(job.beginning)

    def _start(self, job: _Job) -> None:
        self._running.append(job)
        for engine in self._engines:
            engine.open(job.id, job.room)
        if self._lookup:
            job.proposer = PromptLookup()
        elif self._ahead and self._draft:
            job.proposer = DraftModel(self._draft, job.id, room=job.room)
        if self._reuse:
            self._take_prefix(job)

    def _take_prefix(self, job: _Job) -> None:
        roots = window_roots(job.asked.prompt)
        for engine in self._engines:
            model, block = engine.manifest.model_id, engine.first
            first = salted_lineage(model, first_block=block, profile=self._profile, salt=job.asked.salt)
            job.keys.append(prefix_keys(first, roots))
        pairs = list(zip(self._engines, job.keys, strict=True))
        held = min(engine.held_prefix(keys) for engine, keys in pairs)
        for engine, keys in pairs:
            job.reused = job.computed = engine.take_prefix(job.id, keys[:held])

    def _end(self, job: _Job) -> None:
        self._running.remove(job)
        for engine in self._engines:
            engine.close(job.id)
        if isinstance(job.proposer, DraftModel):
            job.proposer.close()

    def _pass(self) -> None:
        """Compute rows of every running job whose turn it is, and take what follows from them."""
        turns = self._prompt_rows() + self._decode_rows()
        inputs = [
            StepInput(
                job=job.id,
                start=job.computed,
                rows=np.array(rows, dtype=np.int64),
                logits=0 if job.computed + len(rows) < len(job.asked.prompt) else 1 + proposed,
                best=not self._margins and job.asked.sampling.temperature == 0,
            )
            for job, rows, proposed in turns
        ]
        codecs = [self._codecs.prefill if job.prefilling else self._codecs.decode for job, _, _ in turns]
        outputs = self._ring.carry(inputs, codecs)
        now = self._ring.now()
        for (job, rows, proposed), output in zip(turns, outputs, strict=True):
            began = job.prefilling
            job.computed += len(rows)
            if output.logits is not None or output.best is not None:
                self._draw(job, output, rows[len(rows) - proposed :])
            if began and not job.prefilling:
                for engine, keys in zip(self._engines, job.keys, strict=False):
                    engine.keep_prefix(job.id, keys)
        now += self._ring.give_back(sum(job.fresh for job, _, _ in turns))
        for job, _, _ in turns:
            job.stamp(now)

    def _prompt_rows(self) -> list[tuple[_Job, list[int], int]]:
        jobs = [job for job in self._running if job.prefilling]
        pending = [(job.computed, len(job.asked.prompt)) for job in jobs]
        counts = [end - start for start, end in pending]
        if self._budget is not None:
            counts = chunks(pending, self._budget)
        return [
            (job, job.ids[job.computed : job.computed + count], 0)
            for job, count in zip(jobs, counts, strict=True)
            if count
        ]

    def _decode_rows(self) -> list[tuple[_Job, list[int], int]]:
        turns: list[tuple[_Job, list[int], int]] = []
        for job in self._running:
            if job.prefilling:
                continue
            # The pass gives one token more than is proposed.
            depth = min(self._lookup or self._ahead, job.asked.max_tokens - len(job.times) - 1)
            proposal = job.proposer.propose(job.ids, depth) if job.proposer and depth > 0 else []
            turns.append((job, [*job.ids[job.computed :], *proposal], len(proposal)))
        return turns

    def _draw(self, job: _Job, output: StepOutput, proposal: Sequence[int]) -> None:
        """Draw token after token while what was proposed is what is drawn; forget the rows of what was not."""
        right = 0
        job.take(output, 0)
        while right < len(proposal) and job.ids[-1] == proposal[right]:
            right += 1
            if job.done:
                break
            job.take(output, right)
        if proposal and job.proposer:
            job.proposer.accepted(len(proposal), right)
            job.proposed += len(proposal)
            job.accepted += right
        if job.computed >= len(job.ids):
            job.computed = len(job.ids) - 1
            for engine in self._engines:
                engine.rollback(job.id, job.computed)


def _check_requests(requests: Sequence[LocalRequest]) -> None:
    if len({asked.request for asked in requests}) < len(requests):
        raise ValueError("two requests have one name; the name goes into the draw, give each its own")
    if any(not asked.prompt or asked.max_tokens < 1 for asked in requests):
        raise ValueError("a request has an empty prompt or asks for no token; give at least one of each")
