"""Write a GGUF's weights as a safetensors folder, which vLLM and transformers read; once, then kept.

The folder holds the GGUF's weights **dequantised**: rounding to 4 bits is in them, only their storage is wider. Results
name the format so (`weights_of`), since 16-bit weights cost more memory traffic than the 4-bit ones they came from.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Literal

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from .face import PeerError

__all__ = ["Dtype", "folder", "weights_of"]

Dtype = Literal["bfloat16", "float32"]

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "build" / "bench" / "models"


def folder(name: str, gguf: Path, *, dtype: Dtype = "bfloat16") -> Path:
    """Return the folder of `gguf` in `dtype`, written first if this very file was not written before."""
    target = KEPT / f"{name}-{dtype}"
    stamp = target / "plait.json"
    digest = _sha256(gguf)
    if stamp.is_file() and json.loads(stamp.read_text(encoding="utf-8")) == {"gguf": digest}:
        return target
    begun = target.with_name(f"{target.name}.{os.getpid()}")
    shutil.rmtree(begun, ignore_errors=True)
    _read(gguf, getattr(torch, dtype)).save_pretrained(begun)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(begun)
    (begun / stamp.name).write_text(json.dumps({"gguf": digest}), encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    begun.rename(target)
    return target


def _read(gguf: Path, dtype: torch.dtype) -> PreTrainedModel:
    """Return transformers' model of a GGUF; `from_pretrained` would do it, but asks for accelerate."""
    config = AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    read = load_gguf_checkpoint(str(gguf), return_tensors=True, model_to_load=model, torch_dtype=dtype)["tensors"]
    missing, unexpected = model.load_state_dict(read, strict=False)
    if set(missing) - {"lm_head.weight"} or unexpected:
        raise PeerError(f"{gguf.name} does not fit transformers' {type(model).__name__}: {missing} {unexpected}")
    model.tie_weights()
    return model


def weights_of(dtype: Dtype) -> str:
    """Return how a result names the weights of such a folder."""
    return {"bfloat16": "bf16", "float32": "fp32"}[dtype] + ", dequantised from GGUF"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
