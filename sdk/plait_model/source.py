"""What a file of weights offers, whichever kind it is, and how to open one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, Self

from plait.protocol.manifest import Tensor
from plait_model.gguf import GgufFile
from plait_model.safetensors_folder import SafetensorsFolder

if TYPE_CHECKING:
    from types import TracebackType

    import numpy as np
    import torch
    from numpy.typing import NDArray

__all__ = ["Naming", "WeightFile", "open_weights"]

# Whose names the tensors have: llama.cpp's (`blk.0.attn_q.weight`) or transformers' (`model.layers.0...`).
Naming = Literal["gguf", "transformers"]


class WeightFile(Protocol):
    """Open weights; a context manager. Tensors that nobody asks for are never read."""

    @property
    def path(self) -> Path:
        """Return the file or folder."""
        ...

    @property
    def naming(self) -> Naming:
        """Return whose names the tensors have."""
        ...

    @property
    def tensors(self) -> Mapping[str, object]:
        """Return the tensors by name."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape, outermost dimension first; raise `UnsupportedModelError` if there is none."""
        ...

    def size(self, name: str) -> int:
        """Return how many bytes a tensor has as it is stored; raise `UnsupportedModelError` if there is none."""
        ...

    def piece(self, name: str, first: int, last: int) -> bytes:
        """Return bytes first to last - 1 of a tensor as it is stored, fewer where it has fewer."""
        ...

    def describe(self, name: str) -> Tensor:
        """Return a tensor's leaf of the weight tree; reads and hashes its bytes."""
        ...

    def list_tensors(self) -> tuple[Tensor, ...]:
        """Return all leaves of the weight tree, sorted by UTF-8 name; reads everything once."""
        ...

    def read(self, name: str) -> NDArray[np.float32]:
        """Return a tensor in fp32, its rows as the file orders them."""
        ...

    def read_torch(self, name: str, dtype: torch.dtype, *, out: torch.Tensor | None = None) -> torch.Tensor:
        """Return a tensor in a type; no fp32 copy of the whole of it is made on the way.

        With `out`, of the tensor's shape and contiguous, it is read there and no other copy is made.
        """
        ...

    def close(self) -> None:
        """Give the file back."""
        ...

    def __enter__(self) -> Self:
        """Return the open file."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        ...


def open_weights(path: Path) -> WeightFile:
    """Open a GGUF file, a safetensors file, or a folder of the latter.

    Raises:
        ModelNotFoundError: there is nothing to open.
        ModelError: it is damaged, or of a kind that is not known.
    """
    if path.is_dir() or path.suffix == ".safetensors":
        return SafetensorsFolder.open(path)
    return GgufFile.open(path)
