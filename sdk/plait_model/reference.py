"""The whole model as transformers runs it, from the same tensors: what every split has to agree with."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers.models.llama.modeling_llama import LlamaForCausalLM, LlamaRotaryEmbedding

from plait.protocol.manifest import Manifest
from plait_model import weights
from plait_model.families import checked_config, family_of
from plait_model.gguf import GgufFile
from plait_model.layers import llama_config

__all__ = ["load_reference"]


def load_reference(path: Path, manifest: Manifest) -> LlamaForCausalLM:
    """Return transformers' own whole model in fp32; raise `ModelError` if the file cannot be used."""
    family = family_of(manifest.architecture)
    config = checked_config(manifest)
    made = llama_config(config)
    with torch.device("meta"):
        model = LlamaForCausalLM(made)
    with GgufFile.open(path) as file:
        state = {"model.embed_tokens.weight": weights.embedding(file), "model.norm.weight": weights.final_norm(file)}
        tied = made.tie_word_embeddings
        state["lm_head.weight"] = state["model.embed_tokens.weight"] if tied else weights.head(file)
        for block in range(manifest.blocks):
            for name, tensor in weights.block_tensors(file, family, config, block).items():
                state[f"model.layers.{block}.{name}"] = tensor
    model.load_state_dict(state, assign=True)
    # Its buffers are no weights: built on "meta" they hold nothing.
    model.model.rotary_emb = LlamaRotaryEmbedding(made)
    model.requires_grad_(requires_grad=False)
    return model.eval()
