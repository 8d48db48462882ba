"""What can be wrong with a model, its file, or a request to sample from it.

ModelError
├── ModelNotFoundError            no such file, or no such embedded model
├── GgufError                     the file is not one we can read
│   ├── MalformedGgufError        truncated, out of range, or lying about its size
│   └── UnsupportedModelError     a family, a tensor type or a tokenizer we do not know, in any kind of file
├── MalformedFolderError          safetensors, or the JSON beside them, are damaged or contradict each other
├── WeightsMismatchError          the tensors are not the ones that the manifest names
├── BlockRangeError               a block range that the model does not have
└── SamplingError
    ├── SamplingRangeError        a parameter that PROTOCOL section 7 does not allow
    └── BadLogitsError            NaN, +inf or nothing finite: the job fails
"""

from __future__ import annotations

__all__ = [
    "BadLogitsError",
    "BlockRangeError",
    "GgufError",
    "MalformedFolderError",
    "MalformedGgufError",
    "ModelError",
    "ModelNotFoundError",
    "SamplingError",
    "SamplingRangeError",
    "UnsupportedModelError",
    "WeightsMismatchError",
]


class ModelError(Exception):
    """Root of everything that plait_model raises."""


class ModelNotFoundError(ModelError):
    """There is no such file or embedded model."""


class GgufError(ModelError):
    """The file is not a GGUF file that we can read."""


class MalformedGgufError(GgufError):
    """The file is truncated or contradicts itself."""


class UnsupportedModelError(GgufError):
    """The file is well formed but holds something that this version does not know."""


class MalformedFolderError(ModelError):
    """A file of a model's folder is truncated or contradicts itself or another."""


class WeightsMismatchError(ModelError):
    """The tensors are not the ones that the manifest names."""


class BlockRangeError(ModelError):
    """The model has no such range of blocks."""


class SamplingError(ModelError):
    """No token can be drawn."""


class SamplingRangeError(SamplingError):
    """A sampling parameter is out of range."""


class BadLogitsError(SamplingError):
    """The logits hold a NaN, a +inf, or nothing finite."""
