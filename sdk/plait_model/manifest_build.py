"""Build a manifest, and the files it names, out of a GGUF file or a folder of safetensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from plait.protocol.ids import keccak
from plait.protocol.manifest import FP32_STRICT, Manifest, Profile, Tensor, weights_root
from plait_model.configs import transformers_config
from plait_model.decoder_form import DecoderForm, check_form
from plait_model.families import find_family
from plait_model.folder_facts import folder_facts
from plait_model.gguf import GgufFile
from plait_model.gguf_facts import Facts, gguf_facts
from plait_model.safetensors_folder import SafetensorsFolder
from plait_model.source import WeightFile, open_weights
from plait_model.weights import check_all_known, check_head

__all__ = ["BuiltModel", "build_manifest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltModel:
    """A manifest with the contents of the files that it names by hash."""

    manifest: Manifest
    tokenizer_json: bytes
    chat_template: str
    tensors: tuple[Tensor, ...]


def build_manifest(
    path: Path,
    *,
    name: str | None = None,
    chat_template: str | None = None,
    profiles: Sequence[Profile] = (FP32_STRICT,),
) -> BuiltModel:
    """Build the manifest of a GGUF file, or of a folder with config.json, tokenizer.json and safetensors.

    `name` is the file's own by default; `chat_template` stands in where there is none, as with base models.

    Raises:
        ModelError: a file is missing, damaged, or of a kind that this version does not know.
    """
    with open_weights(path) as file:
        facts = _facts(file, chat_template)
        tensors = file.list_tensors()
        manifest = Manifest(
            name=name or facts.name,
            architecture=facts.architecture,
            config=facts.config,
            blocks=int(facts.config["num_hidden_layers"]),
            hidden=int(facts.config["hidden_size"]),
            vocabulary=int(facts.config["vocab_size"]),
            context=int(facts.config["max_position_embeddings"]),
            tokenizer=keccak(facts.tokenizer_json),
            chat_template=keccak(facts.chat_template.encode()),
            bos_token=facts.bos_token,
            eos_token=facts.eos_token,
            end_tokens=facts.end_tokens,
            weights=weights_root(tensors),
            licence=facts.licence,
            profiles=tuple(profiles),
        )
        _check_runs(file, manifest)
    return BuiltModel(
        manifest=manifest, tokenizer_json=facts.tokenizer_json, chat_template=facts.chat_template, tensors=tensors
    )


def _facts(file: WeightFile, chat_template: str | None) -> Facts:
    if isinstance(file, GgufFile):
        return gguf_facts(file, chat_template=chat_template)
    if isinstance(file, SafetensorsFolder):
        return folder_facts(file, chat_template=chat_template)
    raise TypeError(f"{type(file).__name__} says nothing of a model but its weights")


def _check_runs(file: WeightFile, manifest: Manifest) -> None:
    """Refuse what could be published and not be run."""
    check_head(file, tied=bool(manifest.config["tie_word_embeddings"]))
    family = find_family(manifest.architecture)
    if family is not None:
        check_all_known(file, family, blocks=manifest.blocks)
        return
    made = transformers_config(manifest)
    check_form(made)
    form = DecoderForm.of(made)
    form.key_value_shape()
    check_all_known(file, form.layers[0].state_dict(), blocks=manifest.blocks)
