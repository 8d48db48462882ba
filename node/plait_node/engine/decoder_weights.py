"""Load the matrices and norms of a range of blocks in the form that a lane computes with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from plait.protocol.manifest import Manifest
from plait_model import weights
from plait_model.errors import WeightsMismatchError
from plait_model.families import DecoderShape, checked_config, family_of
from plait_node.engine.arena import Arena
from plait_node.engine.lane import Lane
from plait_node.engine.matrix import Matrix, Packed, Plain, quantised

if TYPE_CHECKING:
    from plait_model.source import WeightFile

__all__ = ["BlockWeights", "DecoderWeights", "load_decoder"]

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockWeights:
    """One block; norms are fp32 scales, the family's offset in them."""

    qkv: Matrix
    out: Matrix
    gate_up: Matrix
    down: Matrix
    attention_norm: torch.Tensor
    mlp_norm: torch.Tensor
    after_attention_norm: torch.Tensor | None
    after_mlp_norm: torch.Tensor | None
    query_norm: torch.Tensor | None
    key_norm: torch.Tensor | None
    window: int
    rope: int  # index into the decoder's frequencies


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderWeights:
    """Blocks [first, last), with the embedding on the first range and norm and head on the last."""

    shape: DecoderShape
    blocks: tuple[BlockWeights, ...]
    frequencies: tuple[torch.Tensor, ...]  # one or two kinds of rotation, (head_dim / 2,) fp32 each
    embedding: Matrix | None
    norm: torch.Tensor | None
    head: Matrix | None


def load_decoder(
    file: WeightFile, manifest: Manifest, *, first: int, last: int, lane: Lane, packed: bool
) -> DecoderWeights:
    """Read a range's tensors, one block at a time, into the lane's type; raise `ModelError` for what does not fit."""
    family, config = family_of(manifest.architecture), checked_config(manifest)
    shape = family.shape(config)
    stored = torch.float32 if lane.weights == "fp32" else torch.bfloat16
    arena = Arena()
    make = _maker(lane, arena, packed=packed)
    ropes = list(dict.fromkeys(shape.rope))
    blocks = [
        _block(
            weights.block_tensors(file, family, config, block, dtype=stored, shapes=_shapes(shape)),
            shape,
            block,
            rope=ropes.index(shape.rope[block]),
            make=make,
            device=lane.device,
        )
        for block in range(first, last)
    ]
    embedding = _table(file, weights.embedding, shape, lane, arena) if first == 0 else None
    head = norm = None
    if last == shape.blocks:
        norm = _scale(weights.final_norm(file, family, config), shape).to(lane.device)
        shared = embedding if shape.tied else None
        head = _table(file, weights.head, shape, lane, arena) if shared is None else shared
    frequencies = tuple(torch.as_tensor(rope.inverse_frequencies(shape.head_dim)).to(lane.device) for rope in ropes)
    return DecoderWeights(
        shape=shape, blocks=tuple(blocks), frequencies=frequencies, embedding=embedding, norm=norm, head=head
    )


Make = Callable[[torch.Tensor, torch.Tensor | None], Matrix]


class Read(Protocol):
    """The face of `weights.embedding` and `weights.head`."""

    def __call__(
        self, file: WeightFile, *, dtype: torch.dtype, shape: tuple[int, int], out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the table, checked against its shape."""
        ...


def _maker(lane: Lane, arena: Arena, *, packed: bool) -> Make:
    """Return what turns a matrix as loaded into the lane's form."""

    def make(weight: torch.Tensor, bias: torch.Tensor | None) -> Matrix:
        weight = weight.to(lane.device)
        bias = None if bias is None else bias.float().to(lane.device)
        match lane.weights:
            case "int8":
                return quantised(weight, bias, arena, bits=8)
            case "int4":
                return quantised(weight, bias, arena, bits=4)
            case "fp32" | "bf16":
                return Packed(weight, bias) if packed else Plain(arena.place(weight), bias)

    return make


def _block(tensors: Tensors, shape: DecoderShape, block: int, *, rope: int, make: Make, device: str) -> BlockWeights:
    qkv = _joined(tensors, [f"self_attn.{part}_proj" for part in "qkv"])
    gate_up = _joined(tensors, ["mlp.gate_proj", "mlp.up_proj"])

    def scale(name: str) -> torch.Tensor | None:
        tensor = tensors.get(f"{name}.weight")
        return None if tensor is None else _scale(tensor, shape).to(device)

    before_mlp = "pre_feedforward_layernorm" if shape.sandwich else "post_attention_layernorm"
    attention_norm, mlp_norm = scale("input_layernorm"), scale(before_mlp)
    if attention_norm is None or mlp_norm is None:
        raise WeightsMismatchError(f"block {block} lacks a norm; fetch the file again")
    return BlockWeights(
        qkv=make(*qkv),
        out=make(tensors["self_attn.o_proj.weight"], None),
        gate_up=make(*gate_up),
        down=make(tensors["mlp.down_proj.weight"], None),
        attention_norm=attention_norm,
        mlp_norm=mlp_norm,
        after_attention_norm=scale("post_attention_layernorm") if shape.sandwich else None,
        after_mlp_norm=scale("post_feedforward_layernorm") if shape.sandwich else None,
        query_norm=scale("self_attn.q_norm") if shape.qk_norm else None,
        key_norm=scale("self_attn.k_norm") if shape.qk_norm else None,
        window=shape.windows[block],
        rope=rope,
    )


def _joined(tensors: Tensors, names: list[str]) -> tuple[torch.Tensor, torch.Tensor | None]:
    weight = torch.cat([tensors[f"{name}.weight"] for name in names])
    biases = [tensors[f"{name}.bias"] for name in names if f"{name}.bias" in tensors]
    return weight.contiguous(), torch.cat(biases).contiguous() if biases else None


def _scale(weight: torch.Tensor, shape: DecoderShape) -> torch.Tensor:
    return (weight.float() + shape.norm_offset).contiguous()


def _shapes(shape: DecoderShape) -> Mapping[str, tuple[int, ...]]:
    """Return what shape each tensor of a block must have, under transformers' names."""
    hidden, wide, narrow = shape.hidden, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    rows = {"q": wide, "k": narrow, "v": narrow}
    norms = ("input", "post_attention", "pre_feedforward", "post_feedforward")
    return {
        **{f"self_attn.{part}_proj.weight": (count, hidden) for part, count in rows.items()},
        **{f"self_attn.{part}_proj.bias": (count,) for part, count in rows.items()},
        **{f"self_attn.{part}_norm.weight": (shape.head_dim,) for part in "qk"},
        **{f"{norm}_layernorm.weight": (hidden,) for norm in norms},
        "self_attn.o_proj.weight": (hidden, wide),
        "mlp.gate_proj.weight": (shape.inner, hidden),
        "mlp.up_proj.weight": (shape.inner, hidden),
        "mlp.down_proj.weight": (hidden, shape.inner),
    }


def _table(file: WeightFile, read: Read, shape: DecoderShape, lane: Lane, arena: Arena) -> Matrix:
    """Read embedding or head, the largest tensors, straight to where they stay; raise `WeightsMismatchError`."""
    size = (shape.vocabulary, shape.hidden)
    # Four bits cost an embedding more than they save: a tied one is the head as well.
    if lane.weights in ("int8", "int4"):
        return quantised(read(file, dtype=torch.bfloat16, shape=size).to(lane.device), None, arena, bits=8)
    stored = torch.float32 if lane.weights == "fp32" else torch.bfloat16
    return Plain(read(file, dtype=stored, shape=size, out=arena.take(size, stored, device=lane.device)))
