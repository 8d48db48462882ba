"""Our engine as one of the peers: the same workloads, with the row hashes and signed leaves that a stage makes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from types import TracebackType
from typing import Self

from bench.models import whole_engine
from bench.peers import Peer

from plait.protocol.ids import HASH_ZERO, Address, Hash, keccak
from plait.protocol.messages import Sampling
from plait.protocol.typed import Domain, Key
from plait.protocol.windows import WINDOW_STEPS, Cut
from plait_node.commit import StageCommitter, WindowRoots, hash_rows, hash_tail_rows
from plait_node.engine import EngineError, StageEngine, StepInput, StepOutput
from plait_node.engine.lane import WeightType
from plait_node.engine.local_route import LocalRequest, LocalRoute
from plait_node.wire import encode_rows, row_bytes

__all__ = ["GREEDY", "CommittingEngine", "PlaitPeer"]

GREEDY = Sampling(temperature=0, top_p=1_000_000, top_k=0, stop=HASH_ZERO)
_DOMAIN = Domain(chain_id=31_337, channels=Address(bytes(20)))
_ROOM = 2_048


class CommittingEngine(StageEngine):
    """A stage engine that hashes what goes in and out and signs a leaf a window, as the stage role does."""

    committing_s = 0.0  # time spent on it

    def begin(self, prompts: dict[Hash, int]) -> None:
        """Take the jobs that come next, with the length of their prompts."""
        sign = partial(Key.from_bytes(keccak(b"bench")).signed, _DOMAIN)
        self._committers = {
            job: StageCommitter(
                domain=_DOMAIN, sign=sign, salt_rows=bytes(32), job=job, stage=0, cut=Cut(prompt_end=length)
            )
            for job, length in prompts.items()
        }
        self._hashed = dict.fromkeys(prompts, 0)

    def step(self, inputs: Sequence[StepInput]) -> list[StepOutput | EngineError]:
        """Compute as ever, then commit."""
        answers = super().step(inputs)
        began = time.perf_counter()
        for given, answer in zip(inputs, answers, strict=True):
            if isinstance(answer, StepOutput) and given.job in self._committers:
                self._commit(given, answer)
        self.committing_s += time.perf_counter() - began
        return answers

    def _commit(self, given: StepInput, output: StepOutput) -> None:
        committer = self._committers[given.job]
        if given.start != self._hashed[given.job]:
            # Its first windows came from the cache, and their roots with them.
            roots = WindowRoots(in_root=HASH_ZERO, out_root=HASH_ZERO)
            committer.reuse([roots] * (given.start // WINDOW_STEPS))
            self._hashed[given.job] = given.start
        ids = encode_rows(given.rows, codec="ids")
        rows = encode_rows(output.rows, codec="fp32")
        best = [] if output.best is None else output.best.tolist()
        committer.add_input(hash_rows(given.start, ids, width=row_bytes("ids", self.manifest.hidden)))
        width = row_bytes("fp32", self.manifest.hidden)
        committer.add_output(hash_tail_rows(given.start, rows, width=width, sampled=best))
        self._hashed[given.job] += len(given.rows)
        while committer.sign_next() is not None:
            pass


class PlaitPeer(Peer):
    """One whole model on our engine in this process."""

    def __init__(
        self, model: str, weights: WeightType, *, threads: int = 2, compiled: bool = True, chunk: int = 0
    ) -> None:
        self.name = "plait"
        self.model = model
        self.threads = threads
        self.settings = "compiled" if compiled else "packed for oneDNN"
        self.weights = (
            f"{weights}, rounded from GGUF" if weights.startswith("int") else f"{weights}, dequantised from GGUF"
        )
        self._weights: WeightType = weights
        self._compiled = compiled
        self._methods = {"continuous-batching": 8, "prefix-cache": 1, **({"chunked-prefill": chunk} if chunk else {})}
        self._engine: CommittingEngine | None = None
        self._count = 0

    def __enter__(self) -> Self:
        engine = whole_engine(
            self.model,
            self._weights,
            threads=self.threads,
            kv_steps=12 * _ROOM,
            compiled=self._compiled,
            kind=CommittingEngine,
        )
        if not isinstance(engine, CommittingEngine):
            raise TypeError("another engine was made than asked for")
        self._engine = engine
        self.vocabulary = engine.manifest.vocabulary
        self._route = LocalRoute([engine], profile=self._weights, margins=False)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._engine = None

    @property
    def committing_s(self) -> float:
        """Return the seconds spent on hashes and leaves so far."""
        return self._engine.committing_s if self._engine else 0.0

    def complete(self, prompts: Sequence[Sequence[int]], new_tokens: int, *, together: bool) -> list[list[int]]:
        """Return exactly `new_tokens` greedy ids per prompt."""
        if self._engine is None:
            raise RuntimeError("the peer is not entered")
        requests = [self._request(prompt, new_tokens) for prompt in prompts]
        self._engine.begin({asked.request: len(asked.prompt) for asked in requests})
        methods = self._methods if together else {**self._methods, "continuous-batching": 1}
        return [list(answer.ids) for answer in self._route.run(requests, methods)]

    def _request(self, prompt: Sequence[int], new_tokens: int) -> LocalRequest:
        self._count += 1
        return LocalRequest(
            request=keccak(self._count.to_bytes(8, "big")),
            prompt=prompt,
            max_tokens=new_tokens,
            sampling=GREEDY,
            seed=HASH_ZERO,
        )
