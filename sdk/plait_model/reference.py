"""The whole model as transformers runs it, from the same tensors: what every split has to agree with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from plait.protocol.manifest import Manifest
from plait_model import weights
from plait_model.configs import LayerConfig, transformers_config
from plait_model.decoder_form import meta_model
from plait_model.families import find_family
from plait_model.source import WeightFile, open_weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["load_reference"]


def load_reference(path: Path, manifest: Manifest) -> PreTrainedModel:
    """Return transformers' own whole model in fp32; raise `ModelError` if the file cannot be used."""
    made = transformers_config(manifest)
    model = cast("PreTrainedModel", meta_model(made))
    with open_weights(path) as file:
        state = _state(file, manifest, made, model)
    model.load_state_dict(state, assign=True)
    _fill_buffers(model, made)
    model.requires_grad_(requires_grad=False)
    return model.eval()


def _state(file: WeightFile, manifest: Manifest, made: LayerConfig, model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Return all tensors under transformers' names, in the shapes that the model has."""
    family = find_family(manifest.architecture)
    words = {word: value for word, value in manifest.config.items() if value is not None}
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    first = "model.layers.0."
    names = family or [name.removeprefix(first) for name in shapes if name.startswith(first)]
    state = {"model.embed_tokens.weight": weights.embedding(file)}
    state["model.norm.weight"] = weights.final_norm(file, family, words)
    tied = made.tie_word_embeddings
    state["lm_head.weight"] = state["model.embed_tokens.weight"] if tied else weights.head(file)
    for block in range(manifest.blocks):
        for name, tensor in weights.block_tensors(file, names, words, block).items():
            state[f"model.layers.{block}.{name}"] = tensor
    return {name: weights.shaped(file, name, tensor, shapes[name]) for name, tensor in state.items()}


def _fill_buffers(model: PreTrainedModel, made: LayerConfig) -> None:
    """Give the model what is no weight: buffers built on "meta" hold nothing."""
    inner = cast("Any", model).model
    inner.rotary_emb = type(inner.rotary_emb)(config=made)
    scale = getattr(inner.embed_tokens, "scalar_embed_scale", None)
    if scale is not None:
        inner.embed_tokens.embed_scale = torch.tensor(scale)
