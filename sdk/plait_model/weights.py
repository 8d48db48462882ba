"""Load the tensors of a block range, and no others, checked against the manifest's weight tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from plait.protocol.ids import Hash
from plait.protocol.manifest import Tensor, weights_root
from plait_model.errors import BlockRangeError, WeightsMismatchError
from plait_model.families import EMBEDDING, HEAD, NORM, Config, Family

if TYPE_CHECKING:
    from plait_model.gguf import GgufFile

__all__ = [
    "block_tensors",
    "check_tensors",
    "embedding",
    "final_norm",
    "head",
    "range_names",
]


def range_names(file: GgufFile, family: Family, *, first: int, last: int, blocks: int) -> list[str]:
    """Return the tensors that blocks first to last - 1 need; raise `BlockRangeError`."""
    if not 0 <= first < last <= blocks:
        raise BlockRangeError(f"blocks [{first}, {last}) do not exist; the model has [0, {blocks})")
    names = [f"blk.{block}.{tensor}" for block in range(first, last) for tensor in family.tensors]
    tied = HEAD not in file.tensors
    if first == 0 or (last == blocks and tied):
        names.append(EMBEDDING)
    if last == blocks:
        names += [NORM] if tied else [NORM, HEAD]
    return names


def check_tensors(file: GgufFile, names: Sequence[str], *, tensors: Sequence[Tensor] | None, root: Hash) -> None:
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


def block_tensors(file: GgufFile, family: Family, config: Config, block: int) -> Mapping[str, torch.Tensor]:
    """Return one block's tensors in fp32 under the names of transformers' layer."""
    return {
        word: torch.as_tensor(family.restore(name, file.read(f"blk.{block}.{name}"), config))
        for name, word in family.tensors.items()
    }


def embedding(file: GgufFile) -> torch.Tensor:
    """Return the embedding in fp32."""
    return torch.as_tensor(file.read(EMBEDDING))


def head(file: GgufFile) -> torch.Tensor:
    """Return the output head in fp32: a tensor of its own, or the embedding where they are tied."""
    return torch.as_tensor(file.read(HEAD if HEAD in file.tensors else EMBEDDING))


def final_norm(file: GgufFile) -> torch.Tensor:
    """Return the scale of the norm before the head, in fp32."""
    return torch.as_tensor(file.read(NORM))
