"""Run a range of blocks by transformers' own layers: the reference, and the slow road for every other architecture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, TypeVar

import torch
from torch.nn import functional

from plait.protocol.manifest import Manifest
from plait_model import weights
from plait_model.configs import transformers_config
from plait_model.decoder_form import DecoderForm, check_form, visible
from plait_model.errors import BlockRangeError, WeightsMismatchError
from plait_model.families import Config, Family, find_family, shape_of

if TYPE_CHECKING:
    from plait_model.source import WeightFile

__all__ = ["BlockRange", "KeyValues", "range_tensors"]

Filled = TypeVar("Filled", bound=torch.nn.Module)


class KeyValues(Protocol):
    """What a layer needs of a cache: add the new rows, give back all rows so far."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store the rows of one layer and return all of its rows; the range's first layer is number 0."""
        ...


def range_tensors(file: WeightFile, manifest: Manifest, *, first: int, last: int) -> list[str]:
    """Return the names of the tensors that a range needs, of a model of any architecture.

    Raises:
        BlockRangeError: the model has no such range.
        UnsupportedModelError: the architecture cannot be run.
    """
    names = find_family(manifest.architecture) or _layer_names(DecoderForm.of(transformers_config(manifest)))
    return weights.range_names(file, names, first=first, last=last, blocks=manifest.blocks)


class BlockRange:
    """Blocks [first, last) in fp32, with embedding on the first and norm and head on the last.

    Raises:
        UnsupportedModelError: the architecture cannot be run exactly, or the manifest contradicts itself.
        BlockRangeError: the model has no such range.
        WeightsMismatchError: a tensor does not have the shape that the manifest's config gives it.
    """

    def __init__(self, file: WeightFile, manifest: Manifest, *, first: int, last: int) -> None:
        if not 0 <= first < last <= manifest.blocks:
            raise BlockRangeError(f"blocks [{first}, {last}) do not exist; the model has [0, {manifest.blocks})")
        made = transformers_config(manifest)
        family = find_family(manifest.architecture)
        self._form = DecoderForm.of(made)
        self._embed_scale = 1.0
        if family is None:
            check_form(made)
            self.kv_heads, self.head_dim = self._form.key_value_shape()
        else:
            shape = shape_of(manifest)
            self.kv_heads, self.head_dim, self._embed_scale = shape.kv_heads, shape.head_dim, shape.embed_scale
        self._first, self._last = first, last
        self.is_first, self.is_last = first == 0, last == manifest.blocks
        names: Family | list[str] = family or _layer_names(self._form)
        self.layers = [
            _filled(file, self._form.layers[block], weights.block_tensors(file, names, _words(manifest), block), block)
            for block in range(first, last)
        ]
        size = (manifest.vocabulary, manifest.hidden)
        self._embedding = weights.embedding(file, shape=size) if self.is_first else None
        self._head: torch.Tensor | None = None
        self._norm: torch.nn.Module | None = None
        if self.is_last:
            shared = self._embedding if made.tie_word_embeddings else None
            self._head = weights.head(file, shape=size) if shared is None else shared
            scale = weights.final_norm(file, family, _words(manifest))
            self._norm = _filled(file, self._form.norm, {"weight": scale}, None)

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Return one row per id."""
        if self._embedding is None:
            raise TypeError("only the first range embeds ids")
        rows = functional.embedding(ids, self._embedding)
        return rows if self._embed_scale == 1 else rows * torch.tensor(self._embed_scale)

    def forward(self, rows: torch.Tensor, *, start: int, cache: KeyValues) -> torch.Tensor:
        """Run rows of shape (n, hidden) at positions start to start + n - 1 through all blocks."""
        count = rows.shape[0]
        hidden, kept = rows[None], _Shifted(cache, self._first)
        positions = torch.arange(start, start + count)[None]
        windows = self._form.windows[self._first : self._last]
        masks = {window: visible(start, count, window) for window in set(windows)}
        turned = self._form.rotations(self._first, self._last, start=start, count=count)
        for layer, window, rotation in zip(self.layers, windows, turned, strict=True):
            hidden = layer(
                hidden,
                attention_mask=masks[window],
                position_ids=positions,
                past_key_values=kept,
                position_embeddings=rotation,
            )
        return hidden[0]

    def logits(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the logits of rows of the last block."""
        if self._norm is None or self._head is None:
            raise TypeError("only the last range has a head")
        return functional.linear(self._norm(rows), self._head)


class _Shifted:
    """A cache whose first layer is the range's, for layers that count from the model's."""

    def __init__(self, cache: KeyValues, first: int) -> None:
        self._cache = cache
        self._first = first

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *_: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return self._cache.update(key_states, value_states, layer_idx - self._first)


def _layer_names(form: DecoderForm) -> list[str]:
    return list(form.layers[0].state_dict())


def _words(manifest: Manifest) -> Config:
    return {word: value for word, value in manifest.config.items() if value is not None}


def _filled(file: WeightFile, module: Filled, tensors: Mapping[str, torch.Tensor], block: int | None) -> Filled:
    """Return the module with these tensors in place of those on "meta"."""
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    place = "after the last block" if block is None else f"of block {block}"
    if set(expected) != set(tensors):
        odd = ", ".join(sorted(set(expected) ^ set(tensors)))
        raise WeightsMismatchError(f"{odd} {place} do not fit the manifest's config; publish the model anew")
    given = {name: weights.shaped(file, f"{name} {place}", tensors[name], shape) for name, shape in expected.items()}
    module.load_state_dict(given, assign=True)
    module.requires_grad_(requires_grad=False)
    return module.eval()
