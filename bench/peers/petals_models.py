"""Llama models that both plait and Petals load: a folder with safetensors in fp32, configuration, tokenizer, template.

Petals reads `rope_theta` where transformers 5 writes `rope_parameters`, so config.json is in the old words, which both
understand.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import LlamaConfig, LlamaForCausalLM

from plait_model.gguf import EMBEDDED_MODELS, find_embedded_model

from . import models

__all__ = ["SMOLLM2", "TINY", "llama"]

TINY: Final = "random-llama-14m"
SMOLLM2: Final = "smollm2-135m-fp32"
_FORM: Final = "1"  # of the folders; another one makes them anew
_SEED: Final = 7
_END: Final = 0
_UNKNOWN: Final = "w1"
_TEMPLATE: Final = "{{ messages[-1].content }}"


def llama(name: str) -> Path:
    """Return the folder of `TINY` or `SMOLLM2`, written once and kept under build/bench/models."""
    target = models.KEPT / name
    stamp = target / "plait.json"
    wanted = json.dumps({"form": _FORM})
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return target
    begun = target.with_name(f"{name}.{os.getpid()}")
    shutil.rmtree(begun, ignore_errors=True)
    begun.mkdir(parents=True)
    _MAKERS[name](begun)
    (begun / stamp.name).write_text(wanted, encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    begun.rename(target)
    return target


def _tiny(folder: Path) -> None:
    """Write random weights of 13.7 million numbers; each id is a word, so that text tells ids."""
    config = LlamaConfig(
        vocab_size=1_024,
        hidden_size=512,
        intermediate_size=1_376,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=2_048,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=_END,
        pad_token_id=None,
    )
    torch.manual_seed(_SEED)
    model = LlamaForCausalLM(config).float().eval()
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if "norm" not in name:
                # Wide enough for logits to differ, and for the answer not to be one word.
                tensor.mul_(4.0)
        model.lm_head.weight[_END] = 0.0  # an answer has the length asked for
    model.save_pretrained(folder)
    words = {"</s>": _END, **{f"w{number}": number for number in range(1, config.vocab_size)}}
    tokenizer = Tokenizer(WordLevel(words, unk_token=_UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(_TEMPLATE, encoding="utf-8")
    _old_words(folder)


def _smollm2(folder: Path) -> None:
    """Write the real SmolLM2 135M, dequantised."""
    name = "smollm2-135m"
    source = models.folder(name, find_embedded_model(name), dtype="float32")
    for path in source.iterdir():
        if path.name.startswith(("config", "generation_config", "tokenizer")):
            shutil.copy(path, folder)
        elif path.suffix == ".safetensors":
            os.link(path, folder / path.name)
    template = EMBEDDED_MODELS[name].chat_template
    found = source / "chat_template.jinja"
    text = found.read_text(encoding="utf-8") if found.is_file() else template or ""
    (folder / found.name).write_text(text, encoding="utf-8")
    _old_words(folder)


def _old_words(folder: Path) -> None:
    path = folder / "config.json"
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    rope = config.pop("rope_parameters", {})
    config |= {"rope_theta": rope.get("rope_theta", 10_000.0), "torch_dtype": "float32"}
    config.pop("dtype", None)
    path.write_text(json.dumps(config, indent=1), encoding="utf-8")


_MAKERS: Final[dict[str, Callable[[Path], None]]] = {TINY: _tiny, SMOLLM2: _smollm2}
