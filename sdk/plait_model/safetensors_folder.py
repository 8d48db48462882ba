"""Open safetensors, one file or the shards of a folder, and read single tensors out of them.

The package `safetensors` is not used: it does not say where a tensor's bytes lie, and they are what is hashed.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self, cast

import numpy as np

from plait.protocol.manifest import Tensor
from plait_model.errors import MalformedFolderError, ModelNotFoundError, UnsupportedModelError
from plait_model.safetensors_header import StoredTensor, read_header

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    import torch
    from numpy.typing import NDArray

__all__ = ["SafetensorsFolder", "read_json"]

SINGLE: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"

_MAX_JSON: Final = 64 * 1_024 * 1_024
_SLAB_ROWS: Final = 512  # read at once: temporary arrays stay small beside the result
_FLOATS: Final = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        ModelNotFoundError: the file cannot be read.
        MalformedFolderError: it is no JSON object, or above 64 MiB.
    """
    try:
        if path.stat().st_size > _MAX_JSON:
            raise MalformedFolderError(f"{path} has more than {_MAX_JSON} bytes; fetch it again")
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise ModelNotFoundError(f"cannot open {path}: {error.strerror}; the model's folder needs it") from error
    except (ValueError, RecursionError) as error:
        raise MalformedFolderError(f"{path} is no JSON: {error}; fetch it again") from error
    if not isinstance(value, dict):
        raise MalformedFolderError(f"{path} is no JSON object; fetch it again")
    return cast("dict[str, Any]", value)


@dataclass(frozen=True, slots=True, kw_only=True)
class SafetensorsFolder:
    """Open safetensors files; a context manager. Pages of tensors that nobody asks for are never touched."""

    path: Path
    tensors: Mapping[str, StoredTensor]
    maps: tuple[mmap.mmap, ...]

    @classmethod
    def open(cls, path: Path) -> SafetensorsFolder:
        """Map one .safetensors file, or those of a folder, and read their headers.

        Raises:
            ModelNotFoundError: a file cannot be opened, or the folder holds none.
            MalformedFolderError: a file is damaged, or the index contradicts the files.
            UnsupportedModelError: a storage type that is not known.
        """
        files, listed = _files(path)
        with ExitStack() as opened:
            maps: list[mmap.mmap] = []
            found: dict[str, StoredTensor] = {}
            for number, file in enumerate(files):
                maps.append(opened.enter_context(_mapped(file)))
                for tensor in read_header(maps[-1], label=file.name, file=number):
                    if tensor.name in found:
                        raise MalformedFolderError(f"tensor {tensor.name} is in two files of {path}; fetch them again")
                    found[tensor.name] = tensor
            if listed is not None and {name: files[found[name].file].name for name in found} != listed:
                raise MalformedFolderError(f"{path / INDEX} does not list what its files hold; fetch the folder again")
            opened.pop_all()
        return cls(path=path, tensors=found, maps=tuple(maps))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Unmap the files."""
        for data in self.maps:
            data.close()

    @property
    def naming(self) -> Literal["transformers"]:
        """Return whose names the tensors have."""
        return "transformers"

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape, outermost dimension first; raise `UnsupportedModelError` if there is none."""
        return self._tensor(name).shape

    def size(self, name: str) -> int:
        """Return how many bytes a tensor has as it is stored; raise `UnsupportedModelError` if there is none."""
        return self._tensor(name).size

    def piece(self, name: str, first: int, last: int) -> bytes:
        """Return bytes first to last - 1 of a tensor as it is stored, fewer where it has fewer."""
        tensor = self._tensor(name)
        return self.maps[tensor.file][tensor.offset + first : tensor.offset + min(last, tensor.size)]

    def describe(self, name: str) -> Tensor:
        """Return a tensor's leaf of the weight tree; reads and hashes its bytes."""
        tensor = self._tensor(name)
        with memoryview(self.maps[tensor.file]) as whole, whole[tensor.offset : tensor.offset + tensor.size] as piece:
            digest = hashlib.sha256(piece).digest()
        return Tensor(name=name, dtype=tensor.dtype, shape=tensor.shape, sha256=digest)

    def list_tensors(self) -> tuple[Tensor, ...]:
        """Return all leaves of the weight tree, sorted by UTF-8 name; reads all files once."""
        return tuple(self.describe(name) for name in sorted(self.tensors, key=str.encode))

    def read(self, name: str) -> NDArray[np.float32]:
        """Return a tensor in fp32."""
        stored, dtype = self._stored(name)
        if dtype != "BF16":
            return stored.astype(np.float32, copy=False)
        wide = stored.astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32)

    def read_torch(self, name: str, dtype: torch.dtype, *, out: torch.Tensor | None = None) -> torch.Tensor:
        """Return a tensor in a type, by way of its stored one; in `out` if given, some rows at a time."""
        import torch  # noqa: PLC0415 -- a folder can be listed and hashed without it

        tensor = self._tensor(name)
        if out is None or not tensor.shape:
            stored, kind = self._stored(name)
            made = torch.as_tensor(stored)
            whole = (made.view(torch.bfloat16) if kind == "BF16" else made).to(dtype)
            return whole if out is None else out.copy_(whole)
        for first in range(0, len(out), _SLAB_ROWS):
            stored, kind = self._stored(name, first, min(first + _SLAB_ROWS, len(out)))
            made = torch.as_tensor(stored)
            out[first : first + len(made)] = made.view(torch.bfloat16) if kind == "BF16" else made
        return out

    def _stored(self, name: str, first: int = 0, last: int | None = None) -> tuple[NDArray[Any], str]:
        """Return a copy of a tensor, or of rows first to last - 1 of it, as stored, bf16 as its bits; and its type."""
        tensor = self._tensor(name)
        if tensor.dtype not in _FLOATS:
            raise UnsupportedModelError(f"tensor {name} is stored as {tensor.dtype}; convert it to F32, F16 or BF16")
        rows, *rest = tensor.shape or (1,)
        last, row = rows if last is None else last, tensor.size // max(rows, 1)
        begin, size = tensor.offset + first * row, (last - first) * row
        piece = np.frombuffer(self.maps[tensor.file], dtype=np.uint8, count=size, offset=begin)
        shape = (last - first, *rest) if tensor.shape else ()
        return piece.copy().view(_FLOATS[tensor.dtype]).reshape(shape), tensor.dtype

    def _tensor(self, name: str) -> StoredTensor:
        tensor = self.tensors.get(name)
        if tensor is None:
            raise UnsupportedModelError(f"{self.path.name} has no tensor {name}; it is not a whole model of its family")
        return tensor


def _files(path: Path) -> tuple[list[Path], dict[str, str] | None]:
    """Return the files, and which of them the index says holds each tensor; none for a single file."""
    if not path.is_dir():
        return [path], None
    if not (path / INDEX).exists():
        if not (path / SINGLE).exists():
            raise ModelNotFoundError(
                f"{path} holds neither {SINGLE} nor {INDEX}; give a model's folder or a .gguf file"
            )
        return [path / SINGLE], None
    listed = read_json(path / INDEX).get("weight_map")
    if not isinstance(listed, dict) or not listed:
        raise MalformedFolderError(f"{path / INDEX} has no weight_map; fetch it again")
    names = cast("dict[str, object]", listed)
    for name in names.values():
        # Files may be links, as in Hugging Face's cache; names may not lead anywhere.
        if not isinstance(name, str) or Path(name).name != name or "\\" in name or not name.endswith(".safetensors"):
            raise MalformedFolderError(f"{path / INDEX} names {name!r}, which is no file of the folder; fetch it again")
    found = cast("dict[str, str]", names)
    return [path / name for name in sorted(set(found.values()))], found


def _mapped(path: Path) -> mmap.mmap:
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise ModelNotFoundError(f"cannot open {path}: {error.strerror}; fetch the folder again") from error
    except ValueError as error:
        raise MalformedFolderError(f"{path} is empty; fetch it again") from error
