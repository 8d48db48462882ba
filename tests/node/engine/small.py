"""A model of three small blocks for `LocalRoute`, engines over its splits, and plain answers of one job at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.folders import session_folder
from tests.model import tiny

from plait.protocol.ids import HASH_ZERO, Hash, keccak
from plait.protocol.messages import Sampling
from plait_model.manifest_build import BuiltModel, build_manifest
from plait_model.reference import load_reference
from plait_model.sampler import sample
from plait_node.engine import StageEngine
from plait_node.engine.local_route import Answer, LocalRequest, LocalRoute

BLOCKS = 3
VOCABULARY = len(tiny.VOCABULARY)
SPLITS = {1: ((0, 3),), 2: ((0, 1), (1, 3)), 3: ((0, 1), (1, 2), (2, 3))}
LENGTHS = (1, 15, 16, 17, 100)
TIE = 1e-4  # margins below it may fall either way where sums are added in another order
GREEDY = Sampling(temperature=0, top_p=1_000_000, top_k=0, stop=HASH_ZERO)
DRAWN = Sampling(temperature=700_000, top_p=900_000, top_k=40, stop=HASH_ZERO)
SEED = keccak(b"seed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    path: Path
    built: BuiltModel

    def engine(self, first: int, last: int, kv_steps: int = 1_024) -> StageEngine:
        manifest, tensors = self.built.manifest, self.built.tensors
        return StageEngine(self.path, manifest, first=first, last=last, kv_steps=kv_steps, tensors=tensors)


@cache
def model(noise: float = 0.0) -> Model:
    """Return the model, or one whose last block differs from it by `noise`: a draft that is often right."""
    path = session_folder() / "small.gguf"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny, "BLOCKS", BLOCKS)
        made, other = tiny.tensors(), tiny.tensors(1)
        names = [name for name in made if name.startswith("blk.2") and "norm" not in name]
        tiny.write_tiny(path, changed={name: made[name] + np.float32(noise) * other[name] for name in names})
    return Model(path=path, built=build_manifest(path))


@cache
def route(stages: int) -> LocalRoute:
    made = [model().engine(first, last) for first, last in SPLITS[stages]]
    return LocalRoute(made, draft=model(0.2).engine(0, BLOCKS))


def prompt(length: int, seed: int = 0) -> tuple[int, ...]:
    """Return made-up ids; all prompts of one seed begin alike."""
    return tuple(np.random.default_rng(seed).integers(3, VOCABULARY, 128)[:length].tolist())


def asked(
    ids: Sequence[int],
    name: str,
    *,
    count: int = 20,
    sampling: Sampling = GREEDY,
    end: frozenset[int] = frozenset(),
    salt: bytes = b"",
    after: int = 0,
) -> LocalRequest:
    return LocalRequest(
        request=keccak(name.encode()),
        prompt=ids,
        max_tokens=count,
        sampling=sampling,
        seed=SEED,
        end_tokens=end,
        salt=salt,
        after=after,
    )


@cache
def _alone() -> StageEngine:
    return model().engine(0, BLOCKS)


@cache
def _plain(ids: tuple[int, ...], request: Hash, count: int, sampling: Sampling) -> tuple[list[int], list[float]]:
    engine, text, margins = _alone(), list(ids), list[float]()
    engine.open(request, len(ids) + count)
    at = 0
    while len(margins) < count:
        logits = engine.step_one(request, at, np.array(text[at:], dtype=np.int64)).logits
        assert logits is not None
        drawn = sample(logits[-1], seed=SEED, request=request, position=len(margins), sampling=sampling)
        at = len(text)
        text.append(drawn.id)
        margins.append(drawn.margin)
    engine.close(request)
    return text[len(ids) :], margins


def ties(request: LocalRequest, answer: Answer) -> int:
    """Return 1 if the answer left the plain one at a tie, 0 if they are the same; fail at any other difference."""
    ids, margins = _plain(tuple(request.prompt), request.request, request.max_tokens, request.sampling)
    stops = [index for index, token in enumerate(ids) if token in request.end_tokens]
    ids = ids[: stops[0] + 1] if stops else ids
    for index, (right, ours) in enumerate(zip(ids, answer.ids, strict=False)):
        if right != ours:
            assert margins[index] < TIE, f"token {index}: {ours} instead of {right}"
            return 1
    assert len(answer.ids) == len(ids)
    return 0


def by_transformers(ids: Sequence[int], count: int) -> list[int]:
    given = torch.tensor([list(ids)])
    whole = load_reference(model().path, model().built.manifest)
    done = whole.generate(
        given,
        attention_mask=torch.ones_like(given),
        do_sample=False,
        eos_token_id=None,
        max_new_tokens=count,
        pad_token_id=0,
    )
    return done[0, len(ids) :].tolist()
