"""Take one of transformers' decoders apart, and make sure that nothing happens between the parts that is not seen.

A range of blocks runs layers of a model without the model around them. What that model does outside its layers, such
as scaling embeddings or logits, is found by running it with stand-ins for its parts, and refused.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from plait_model.configs import LayerConfig
from plait_model.errors import UnsupportedModelError

__all__ = ["DecoderForm", "check_form", "meta_model", "visible"]

# What frequencies may not depend on: the rows of one step would change with those after it.
_STATIC_ROPE: Final = ("default", "linear", "llama3", "yarn")
# What a layer may be given besides rows, mask, rotation and cache, for it changes nothing here.
_IDLE: Final = frozenset({"position_ids", "past_key_values", "use_cache", "output_attentions", "output_router_logits"})
_PROBE_STEPS: Final = 8
_PROBE_WINDOW: Final = 5
_OUTSIDE: Final = frozenset({"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"})


class _Rotary(Protocol):
    """The face of transformers' rotary embeddings."""

    def __call__(self, x: torch.Tensor, position_ids: torch.Tensor, *kind: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Return cosines and sines of shape (1, n, width) in the type of x."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderForm:
    """The parts of a model on "meta", and what its layers are to be given.

    `kinds` names one kind of rotation per block, none where all are alike; `windows` is as in `DecoderShape`.
    """

    config: LayerConfig
    layers: Sequence[nn.Module]
    norm: nn.Module
    rotary: _Rotary
    kinds: tuple[str | None, ...]
    windows: tuple[int, ...]

    @classmethod
    def of(cls, config: LayerConfig) -> DecoderForm:
        """Take the model of a configuration apart; raise `UnsupportedModelError` if it has other parts."""
        model, layers = _parts(meta_model(config), config)
        ropes = config.rope_parameters
        nested = [cast("dict[str, Any]", rope) for rope in ropes.values() if isinstance(rope, dict)]
        for rope in nested or [ropes]:
            kind = rope.get("rope_type", "default")
            if kind not in _STATIC_ROPE:
                raise _unsupported(config, f"its rotary scaling {kind!r} changes with the length of the text")
        kinds: Sequence[str] = getattr(config, "layer_types", None) or ()
        return cls(
            config=config,
            layers=layers,
            norm=model.norm,
            # Built on "meta" its buffers would hold nothing.
            rotary=cast("_Rotary", type(model.rotary_emb)(config=config)),
            kinds=tuple(kinds) if nested else (None,) * len(layers),
            windows=_windows(config, kinds),
        )

    def rotations(self, first: int, last: int, *, start: int, count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return cosines and sines, (1, count, width) each, of steps from `start` on for blocks first to last - 1."""
        positions, like = torch.arange(start, start + count)[None], torch.zeros(1)
        made = {
            kind: self.rotary(like, positions, *(() if kind is None else (kind,))) for kind in self.kinds[first:last]
        }
        return [made[kind] for kind in self.kinds[first:last]]

    def key_value_shape(self) -> tuple[int, int]:
        """Return the number of key heads and their width; raise `UnsupportedModelError` if more is kept."""
        kept = {self._kept(block) for block in range(len(self.layers))}
        if len(kept) != 1:
            raise _unsupported(self.config, "its blocks keep keys of different shapes")
        return kept.pop()

    def _kept(self, block: int) -> tuple[int, int]:
        seen: list[tuple[torch.Size, torch.Size, int]] = []

        class Keeper:
            def update(
                self, keys: torch.Tensor, values: torch.Tensor, layer: int, *_: object
            ) -> tuple[torch.Tensor, torch.Tensor]:
                seen.append((keys.shape, values.shape, layer))
                return keys, values

        rows = torch.empty(1, 1, self.config.hidden_size, device="meta")
        cosines, sines = self.rotations(block, block + 1, start=0, count=1)[0]
        turned = cosines.to("meta"), sines.to("meta")
        try:
            with torch.inference_mode():
                out: object = self.layers[block].eval()(
                    rows, attention_mask=None, past_key_values=Keeper(), position_embeddings=turned, position_ids=None
                )
        except (AttributeError, TypeError, RuntimeError, NotImplementedError) as error:
            raise _unsupported(self.config, f"its block {block} does not run by itself ({error})") from error
        if not isinstance(out, torch.Tensor) or out.shape != rows.shape or len(seen) != 1:
            raise _unsupported(self.config, f"its block {block} does not give rows and keep keys and values once")
        keys, values, layer = seen[0]
        if keys != values or layer != block or keys[:1] + keys[2:3] != (1, 1):
            raise _unsupported(self.config, f"its block {block} keeps keys {tuple(keys)} and values {tuple(values)}")
        return keys[1], keys[3]


def visible(start: int, count: int, window: int) -> torch.Tensor | None:
    """Return which of start + count keys each of count queries sees, (1, 1, count, keys); none where the kernel knows.

    The kernel masks nothing for one row, and what lies ahead for rows that begin at step 0.
    """
    keys = start + count
    narrow = 0 < window < keys
    if not narrow and (count == 1 or start == 0):
        return None
    mask = torch.ones(count, keys, dtype=torch.bool).tril(start)
    return (mask.triu(start - window + 1) if narrow else mask)[None, None]


def check_form(config: LayerConfig) -> None:
    """Run a model with stand-ins for its parts; raise `UnsupportedModelError` where it does more than pass rows on."""
    probed = copy.deepcopy(config)
    cast("Any", probed)._attn_implementation = "eager"  # noqa: SLF001 -- transformers has no public way to ask for masks
    if getattr(probed, "sliding_window", None) is not None:
        cast("Any", probed).sliding_window = _PROBE_WINDOW
    form = DecoderForm.of(probed)
    whole = meta_model(probed)
    model, layers = _parts(whole, probed)
    if type(model.embed_tokens) is not nn.Embedding:
        raise _unsupported(config, f"it embeds by {type(model.embed_tokens).__name__}")
    rows = torch.randn(1, _PROBE_STEPS, probed.hidden_size, generator=torch.Generator().manual_seed(0))
    stand_ins = [_StandIn(layer) for layer in layers]
    embed, norm, head = _Giver(rows), _StandIn(model.norm), _StandIn(whole.lm_head)
    model.embed_tokens, model.layers, model.norm, whole.lm_head = embed, nn.ModuleList(stand_ins), norm, head
    model.rotary_emb = form.rotary
    try:
        with torch.inference_mode():
            logits = whole.eval()(input_ids=torch.arange(_PROBE_STEPS)[None], use_cache=False).logits
    except (AttributeError, TypeError, RuntimeError, ValueError, KeyError, IndexError) as error:
        raise _unsupported(config, f"it does not run with stand-ins for its parts ({error})") from error
    path = [rows, *(part.output for part in (*stand_ins, norm, head))]
    entered = [*(part.input for part in (*stand_ins, norm, head)), logits]
    for number, (before, after) in enumerate(zip(path, entered, strict=True)):
        if not torch.equal(before, after):
            where = "embeddings" if number == 0 else "logits" if number == len(path) - 1 else "rows between its parts"
            raise _unsupported(config, f"it changes {where} outside its layers")
    turned = form.rotations(0, len(layers), start=0, count=_PROBE_STEPS)
    for part, window, rotation in zip(stand_ins, form.windows, turned, strict=True):
        _check_given(config, part.given, window, rotation)


def _check_given(
    config: LayerConfig, given: dict[str, Any], window: int, rotation: tuple[torch.Tensor, torch.Tensor]
) -> None:
    """Check that a layer was given what a range of blocks gives it."""
    rest = dict(given)
    mask, turned = rest.pop("attention_mask", None), rest.pop("position_embeddings", None)
    other = sorted(key for key, value in rest.items() if key not in _IDLE and value is not None)
    if other:
        raise _unsupported(config, f"its layers need {', '.join(other)}")
    if turned is None or not all(map(torch.equal, turned, rotation)):
        raise _unsupported(config, "its layers are not given the rotation of their kind")
    ours = torch.ones(_PROBE_STEPS, _PROBE_STEPS, dtype=torch.bool).tril()
    ours = ours.triu(1 - window) if window else ours
    if mask is None or not torch.equal((mask if mask.dtype == torch.bool else mask == 0)[0, 0], ours):
        raise _unsupported(config, "its layers see other keys than their kind says")


class _Giver(nn.Module):
    """Stands in for the embedding."""

    def __init__(self, rows: torch.Tensor) -> None:
        super().__init__()
        self._rows = rows

    def forward(self, _ids: torch.Tensor) -> torch.Tensor:
        return self._rows


class _StandIn(nn.Module):
    """Stands in for a part: notes what came, gives out something else, and has the attributes of the part."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self._part = (part,)
        self.given: dict[str, Any] = {}
        self.input = self.output = torch.empty(0)

    def forward(self, rows: torch.Tensor, *more: object, **given: Any) -> torch.Tensor:
        self.given = given if not more else {"arguments without a name": more}
        self.input, self.output = rows, rows * 1.25 + 0.5
        return self.output

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 -- a part has attributes of any kind
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["_part"][0], name)


def meta_model(config: LayerConfig) -> Any:  # noqa: ANN401 -- transformers has no types
    """Return the whole model with tensors on "meta", which hold nothing; raise `UnsupportedModelError`."""
    try:
        with torch.device("meta"):
            return cast("Any", AutoModelForCausalLM).from_config(config)
    except Exception as error:  # each of some hundred architectures checks its config in its own way
        raise _unsupported(config, f"transformers cannot build it ({error})") from error


def _parts(whole: Any, config: LayerConfig) -> tuple[Any, Sequence[nn.Module]]:  # noqa: ANN401 -- as `meta_model`
    """Return the inner model and its layers; raise `UnsupportedModelError` if there are other parts with weights."""
    model = getattr(whole, "model", None)
    lacking = [name for name in ("embed_tokens", "layers", "norm", "rotary_emb") if not hasattr(model, name)]
    if lacking or not hasattr(whole, "lm_head") or model is None:
        raise _unsupported(config, f"it has no {', '.join(lacking) or 'lm_head'}")
    layers = cast("Sequence[nn.Module]", model.layers)
    first = set(layers[0].state_dict())
    if len(layers) != config.num_hidden_layers or any(set(layer.state_dict()) != first for layer in layers):
        raise _unsupported(config, "its blocks are not all of one kind")
    strange = sorted({name for name in whole.state_dict() if not name.startswith("model.layers.")} - _OUTSIDE)
    if strange:
        raise _unsupported(config, f"it has {', '.join(strange)} outside its blocks")
    return model, layers


def _windows(config: LayerConfig, kinds: Sequence[str]) -> tuple[int, ...]:
    window = int(getattr(config, "sliding_window", None) or 0)
    if not kinds:
        return (window,) * config.num_hidden_layers
    if unknown := sorted(set(kinds) - {"full_attention", "sliding_attention"}):
        raise _unsupported(config, f"it has blocks of kind {', '.join(unknown)}")
    return tuple(window if kind == "sliding_attention" else 0 for kind in kinds)


def _unsupported(config: LayerConfig, reason: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"architecture {config.model_type!r} is not supported: {reason}; this version runs gemma3, llama, mistral, "
        "qwen2, qwen3, and what transformers has as a plain decoder"
    )
