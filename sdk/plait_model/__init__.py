"""Read a model's weights, run a range of its blocks by the reference layers, and draw tokens from its logits.

Nothing here imports torch until a module that computes is imported: `weights`, `configs` and what stands on them.
"""

from __future__ import annotations

from plait_model.errors import ModelError
from plait_model.sampler import SampledToken, sample

__all__ = ["ModelError", "SampledToken", "sample"]
