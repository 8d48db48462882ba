"""The shape of Llama 3.1 8B with random weights, made on the device: what speed needs of a model, and no download."""

from __future__ import annotations

from typing import Final

import torch

from plait.protocol.ids import Hash
from plait.protocol.manifest import FP32_STRICT, Manifest
from plait_model.families.base import DecoderShape, Rope
from plait_node.engine import Lane, StageEngine
from plait_node.engine.cuda import CudaBlocks
from plait_node.engine.decoder_weights import BlockWeights, DecoderWeights
from plait_node.engine.lean import LeanBlocks
from plait_node.engine.matrix import Plain

BLOCKS: Final = 32
CONTEXT: Final = 16_384
_ROPE: Final = Rope(theta=500_000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=8_192)
SHAPE: Final = DecoderShape(
    blocks=BLOCKS,
    hidden=4_096,
    inner=14_336,
    heads=32,
    kv_heads=8,
    head_dim=128,
    vocabulary=128_256,
    context=CONTEXT,
    norm_eps=1e-5,
    norm_offset=0.0,
    activation="silu",
    qkv_bias=False,
    qk_norm=False,
    sandwich=False,
    embed_scale=1.0,
    attention_scale=128**-0.5,
    windows=(0,) * BLOCKS,
    rope=(_ROPE,) * BLOCKS,
    tied=False,
)
MANIFEST: Final = Manifest(
    name="llama-3.1-8b-shape",
    architecture="llama",
    config={},
    blocks=BLOCKS,
    hidden=SHAPE.hidden,
    vocabulary=SHAPE.vocabulary,
    context=CONTEXT,
    tokenizer=Hash(bytes(32)),
    chat_template=Hash(bytes(32)),
    bos_token="",
    eos_token="",
    end_tokens=(SHAPE.vocabulary - 1,),
    weights=Hash(bytes(32)),
    licence="none",
    profiles=(FP32_STRICT,),
)


def random_engine(*, first: int = 0, last: int = BLOCKS, kv_steps: int = 131_072, compiled: bool = True) -> StageEngine:
    """Return an engine over a block range in bf16 on the CUDA device; the same blocks hold the same weights."""
    lane = Lane(weights="bf16", device="cuda", compiled=compiled)
    lean = LeanBlocks(_weights(first, last), dtype=torch.bfloat16, device="cuda")
    blocks = CudaBlocks(lean) if compiled else lean
    return StageEngine.over(blocks, MANIFEST, first=first, last=last, kv_steps=kv_steps, lane=lane)


def stage(first: int, last: int) -> StageEngine:
    """Return a small engine over a range: what a stage process of the wire's bench runs."""
    return random_engine(first=first, last=last, kv_steps=4_096)


def weight_bytes(*, blocks: int = BLOCKS, head: bool = True) -> int:
    """Return the bytes of weights that one decode step reads."""
    wide, narrow = SHAPE.heads * SHAPE.head_dim, SHAPE.kv_heads * SHAPE.head_dim
    block = SHAPE.hidden * (wide + 2 * narrow) + wide * SHAPE.hidden + 3 * SHAPE.hidden * SHAPE.inner
    return 2 * (blocks * block + (SHAPE.vocabulary * SHAPE.hidden if head else 0))


def _weights(first: int, last: int) -> DecoderWeights:
    return DecoderWeights(
        shape=SHAPE,
        blocks=tuple(_block(block) for block in range(first, last)),
        frequencies=(torch.as_tensor(_ROPE.inverse_frequencies(SHAPE.head_dim)).cuda(),),
        embedding=_matrix(SHAPE.vocabulary, SHAPE.hidden, seed=1_000, scale=1.0) if first == 0 else None,
        norm=torch.ones(SHAPE.hidden, device="cuda") if last == BLOCKS else None,
        head=_matrix(SHAPE.vocabulary, SHAPE.hidden, seed=1_001) if last == BLOCKS else None,
    )


def _block(block: int) -> BlockWeights:
    wide, narrow = SHAPE.heads * SHAPE.head_dim, SHAPE.kv_heads * SHAPE.head_dim
    seed = 4 * block
    return BlockWeights(
        qkv=_matrix(wide + 2 * narrow, SHAPE.hidden, seed=seed),
        out=_matrix(SHAPE.hidden, wide, seed=seed + 1),
        gate_up=_matrix(2 * SHAPE.inner, SHAPE.hidden, seed=seed + 2),
        down=_matrix(SHAPE.hidden, SHAPE.inner, seed=seed + 3),
        attention_norm=torch.ones(SHAPE.hidden, device="cuda"),
        mlp_norm=torch.ones(SHAPE.hidden, device="cuda"),
        after_attention_norm=None,
        after_mlp_norm=None,
        query_norm=None,
        key_norm=None,
        window=0,
        rope=0,
    )


def _matrix(rows: int, cols: int, *, seed: int, scale: float | None = None) -> Plain:
    draw = torch.Generator("cuda").manual_seed(seed)
    made = torch.randn(rows, cols, dtype=torch.bfloat16, device="cuda", generator=draw)
    return Plain(made * (cols**-0.5 if scale is None else scale))
