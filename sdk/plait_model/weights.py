"""Load the tensors of a block range, and no others, checked against the manifest's weight tree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import torch

from plait.protocol.ids import Hash
from plait.protocol.manifest import Tensor, weights_root
from plait_model.errors import BlockRangeError, UnsupportedModelError, WeightsMismatchError
from plait_model.families import EMBEDDING, HEAD, NORM, Config, Family

if TYPE_CHECKING:
    from plait_model.source import WeightFile

__all__ = [
    "block_tensors",
    "check_all_known",
    "check_head",
    "check_tensors",
    "embedding",
    "final_norm",
    "head",
    "range_names",
    "shaped",
]

# GGUF's names outside the blocks, and transformers'.
_OUTSIDE: Final = {EMBEDDING: "model.embed_tokens.weight", NORM: "model.norm.weight", HEAD: "lm_head.weight"}
# What files may hold besides a model's weights: tables that are computed anew.
_TABLES: Final = ("rope_freqs.weight", "rotary_emb.inv_freq")


def range_names(file: WeightFile, family: Family | Iterable[str], *, first: int, last: int, blocks: int) -> list[str]:
    """Return the tensors that blocks first to last - 1 need, as the file names them; raise `BlockRangeError`.

    In place of a family, give the names of a block's tensors as transformers' layer has them.
    """
    if not 0 <= first < last <= blocks:
        raise BlockRangeError(f"blocks [{first}, {last}) do not exist; the model has [0, {blocks})")
    words = tuple(_block_names(file, family))
    names = [f"{_prefix(file, block)}{word}" for block in range(first, last) for word in words]
    tied = not _has_head(file)
    if first == 0 or (last == blocks and tied):
        names.append(_outside(file, EMBEDDING))
    if last == blocks:
        names += [_outside(file, NORM)] if tied else [_outside(file, NORM), _outside(file, HEAD)]
    return names


def check_all_known(file: WeightFile, family: Family | Iterable[str], *, blocks: int) -> None:
    """Check that the file holds the model's tensors and no others; raise `UnsupportedModelError` naming some."""
    needed = set(range_names(file, family, first=0, last=blocks, blocks=blocks))
    held = {name for name in file.tensors if not name.endswith(_TABLES)}
    if missing := sorted(needed - held):
        raise UnsupportedModelError(f"{file.path.name} lacks {_some(missing)}; it is not a whole model of its family")
    if unknown := sorted(held - needed):
        raise UnsupportedModelError(f"{file.path.name} holds {_some(unknown)}, which this version would not use")


def check_head(file: WeightFile, *, tied: bool) -> None:
    """Check that the file has a head of its own unless it is tied; raise `UnsupportedModelError`."""
    own = _has_head(file)
    if not own and not tied:
        raise UnsupportedModelError(f"{file.path.name} lacks {_outside(file, HEAD)}, and its config ties no head")
    if own and tied:
        ours, theirs = (file.describe(_outside(file, name)) for name in (HEAD, EMBEDDING))
        if (ours.dtype, ours.shape, ours.sha256) != (theirs.dtype, theirs.shape, theirs.sha256):
            raise UnsupportedModelError(
                f"{file.path.name} holds a head that is not the embedding its config ties it to"
            )


def check_tensors(file: WeightFile, names: Sequence[str], *, tensors: Sequence[Tensor] | None, root: Hash) -> None:
    """Check that these tensors are the manifest's; without `tensors` the whole file is hashed to list them.

    Raises:
        WeightsMismatchError: the list does not give the root, or a tensor of the file is not the listed one.
    """
    listed = file.list_tensors() if tensors is None else tensors
    if weights_root(listed) != root:
        raise WeightsMismatchError(
            f"{file.path.name} is not the file that the manifest names: its weight tree differs; fetch it again"
        )
    if tensors is None:
        return
    expected = {tensor.name: tensor for tensor in listed}
    for name in names:
        if file.describe(name) != expected.get(name):
            raise WeightsMismatchError(f"tensor {name} of {file.path.name} is not the manifest's; fetch the file again")


def block_tensors(
    file: WeightFile,
    family: Family | Iterable[str],
    config: Config,
    block: int,
    *,
    dtype: torch.dtype = torch.float32,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> Mapping[str, torch.Tensor]:
    """Return one block's tensors under the names of transformers' layer, one at a time brought to `dtype`.

    With `shapes`, under the same names, a tensor of another shape raises `WeightsMismatchError` with its name.
    """
    prefix = _prefix(file, block)
    made: dict[str, torch.Tensor] = {}
    for name, word in _words(file, family):
        full = f"{prefix}{name}"
        if shapes is not None:
            _check_shape(file, full, file.shape(full), shapes[word])
        if isinstance(family, Family) and file.naming == "gguf":
            made[word] = torch.as_tensor(family.restore(name, file.read(full), config)).to(dtype)
        else:
            made[word] = file.read_torch(full, dtype)
    return made


def embedding(
    file: WeightFile,
    *,
    dtype: torch.dtype = torch.float32,
    shape: Sequence[int] | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the embedding, (vocabulary, hidden), without the scale that some families apply; in `out` if given.

    Raises:
        WeightsMismatchError: there is a `shape` and the tensor, which is named, has another one.
    """
    return _table(file, _outside(file, EMBEDDING), dtype, shape, out)


def head(
    file: WeightFile,
    *,
    dtype: torch.dtype = torch.float32,
    shape: Sequence[int] | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the output head, a tensor of its own or the embedding where they are tied; as `embedding` does."""
    return _table(file, _outside(file, HEAD if _has_head(file) else EMBEDDING), dtype, shape, out)


def final_norm(
    file: WeightFile, family: Family | None = None, config: Config | None = None, *, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Return the weight of the norm before the head, (hidden,), as transformers has it; GGUF needs the family."""
    name = _outside(file, NORM)
    if family is None or file.naming == "transformers":
        return file.read_torch(name, dtype)
    return torch.as_tensor(family.restore(NORM, file.read(name), config or {})).to(dtype)


def shaped(file: WeightFile, name: str, tensor: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Return the tensor; raise `WeightsMismatchError` naming it unless it has this shape."""
    _check_shape(file, name, tensor.shape, shape)
    return tensor


def _check_shape(file: WeightFile, name: str, shape: Sequence[int], needed: Sequence[int]) -> None:
    if tuple(shape) != tuple(needed):
        raise WeightsMismatchError(
            f"tensor {name} of {file.path.name} has shape {tuple(shape)}; the manifest's config needs "
            f"{tuple(needed)}; fetch the file again or publish the model anew"
        )


def _table(
    file: WeightFile, name: str, dtype: torch.dtype, shape: Sequence[int] | None, out: torch.Tensor | None
) -> torch.Tensor:
    if shape is not None:
        _check_shape(file, name, file.shape(name), shape)
    return file.read_torch(name, dtype, out=out)


def _block_names(file: WeightFile, family: Family | Iterable[str]) -> Iterable[str]:
    return [name for name, _ in _words(file, family)]


def _words(file: WeightFile, family: Family | Iterable[str]) -> Iterable[tuple[str, str]]:
    """Return each tensor of a block as the file and as transformers' layer name it."""
    if not isinstance(family, Family):
        return [(word, word) for word in family]
    return [(name if file.naming == "gguf" else word, word) for name, word in family.tensors.items()]


def _prefix(file: WeightFile, block: int) -> str:
    return f"blk.{block}." if file.naming == "gguf" else f"model.layers.{block}."


def _outside(file: WeightFile, name: str) -> str:
    return name if file.naming == "gguf" else _OUTSIDE[name]


def _has_head(file: WeightFile) -> bool:
    return _outside(file, HEAD) in file.tensors


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
