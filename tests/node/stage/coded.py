"""What a route answers, by the book: every stage's blocks in turn, rows rounded where they would travel."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from tests.node.stage.tiny import BLOCKS, CONTEXT, HIDDEN, MANIFEST, TinyEngine

from plait.protocol.ids import Hash
from plait.protocol.manifest import Profile
from plait.protocol.messages import Request
from plait_model import sample
from plait_node.wire import decode_rows, encode_rows

Rows = NDArray[np.int64] | NDArray[np.float32]


def routed_ids(
    request: Request,
    name: Hash,
    prompt: Sequence[int],
    count: int,
    *,
    profile: Profile,
    cuts: Sequence[int] = range(BLOCKS + 1),
) -> list[int]:
    """Return `count` ids after a prompt, one row at a time."""
    engines = [TinyEngine(first, last, kv_steps=CONTEXT) for first, last in pairwise(cuts)]
    for engine in engines:
        engine.open(name, CONTEXT)
    ids = list(prompt)
    for step in range(len(prompt) + count - 1):
        rows: Rows = np.array([ids[step]], dtype=np.int64)
        for engine in engines:
            output = engine.step_one(name, step, rows)
            rows = travelled(output.rows, profile, step=step, prompt=len(prompt))
        position = step + 1 - len(prompt)
        if position >= 0:
            assert output.logits is not None
            drawn = sample(
                output.logits[-1], seed=request.seed, request=name, position=position, sampling=request.sampling
            )
            ids.append(drawn.id)
    return ids[len(prompt) :]


def answer_ids(request: Request, name: Hash, prompt: Sequence[int], count: int, *, profile: Profile) -> list[int]:
    """Return the answer of stages of a block each: it ends with an end token."""
    ids = routed_ids(request, name, prompt, count, profile=profile)
    ends = (at for at, token in enumerate(ids, 1) if token in MANIFEST.end_tokens)
    return ids[: next(ends, count)]


def travelled(rows: Rows, profile: Profile, *, step: int, prompt: int) -> Rows:
    """Return one row as the next stage gets it."""
    codec = profile.prefill_codec if step < prompt else profile.decode_codec
    return decode_rows(encode_rows(rows, codec=codec), codec=codec, count=1, width=HIDDEN, limit=0)
