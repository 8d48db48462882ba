"""Decoding on CUDA: one graph per batch size, kernels in Triton between the library's matrix products."""

from __future__ import annotations

from plait_node.engine.cuda.blocks import CudaBlocks

__all__ = ["CudaBlocks"]
