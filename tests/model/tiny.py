"""Write a whole model of two small blocks as a GGUF file: what takes real weights too long or must be wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import quantize
from transformers.convert_slow_tokenizer import bytes_to_unicode

HIDDEN, INNER, HEADS, GROUPS, BLOCKS, CONTEXT = 64, 96, 4, 2, 2, 128
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
VOCABULARY = [*SPECIAL, *bytes_to_unicode().values(), "Ġa", "he", "ll"]
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def tensors(seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> np.ndarray:
        return (random.normal(size=(rows, columns)) / np.sqrt(columns)).astype(np.float32)

    made = {"token_embd.weight": matrix(len(VOCABULARY), HIDDEN), "output_norm.weight": np.ones(HIDDEN, np.float32)}
    for block in range(BLOCKS):
        shapes = {"attn_q": (HIDDEN, HIDDEN), "attn_k": (HIDDEN // 2, HIDDEN), "attn_v": (HIDDEN // 2, HIDDEN)}
        shapes |= {"attn_output": (HIDDEN, HIDDEN), "ffn_gate": (INNER, HIDDEN), "ffn_up": (INNER, HIDDEN)}
        for name, (rows, columns) in {**shapes, "ffn_down": (HIDDEN, INNER)}.items():
            made[f"blk.{block}.{name}.weight"] = matrix(rows, columns)
        for name in ("attn_norm", "ffn_norm"):
            made[f"blk.{block}.{name}.weight"] = np.ones(HIDDEN, np.float32)
    return made


def write_tiny(path: Path, *, changed: dict[str, np.ndarray] | None = None, architecture: str = "llama") -> Path:
    """Write the file; matrices are stored as Q8_0, `changed` replaces or adds tensors before that."""
    writer = GGUFWriter(path, architecture)
    writer.add_name("Tiny Two")
    writer.add_license("apache-2.0")
    writer.add_block_count(BLOCKS)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(GROUPS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_vocab_size(len(VOCABULARY))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(VOCABULARY)
    writer.add_token_types([3 if token in SPECIAL else 1 for token in VOCABULARY])
    writer.add_token_merges(["Ġ a", "h e", "l l"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)
    for name, tensor in {**tensors(), **(changed or {})}.items():
        if tensor.ndim == 2:
            kind = GGMLQuantizationType.Q8_0
            writer.add_tensor(name, quantize(tensor, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
