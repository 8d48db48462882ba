"""Publish a model: build its manifest, write its folder, register it on chain."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from plait.chain.reader import ModelInfo
from plait.chain.writer import ChainWriter, TxResult
from plait.protocol.ids import Hash, to_hex
from plait.protocol.manifest import FP32_STRICT, Profile
from plait_model.gguf import EMBEDDED_MODELS, find_embedded_model
from plait_node.models.errors import ModelTakenError
from plait_node.models.store import ModelStore, Source, StoredModel

__all__ = ["PublishedModel", "prepare", "publish"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedModel:
    """A model in the folder and on chain; `transaction` is none where it was on chain before."""

    stored: StoredModel
    transaction: TxResult | None

    @property
    def model_id(self) -> Hash:
        """Return the hash of the manifest."""
        return self.stored.model_id


async def publish(
    model: str | Path,
    folder: Path,
    writer: ChainWriter,
    *,
    uri: str = "",
    profiles: Sequence[Profile] = (FP32_STRICT,),
) -> PublishedModel:
    """Publish an embedded model by name, or a GGUF file or a folder of safetensors by path; safe to repeat.

    The profiles are part of the model's id: other profiles make it another model.

    Raises:
        ModelError: the file is missing, damaged or unsupported.
        ModelTakenError: the chain holds this id with other facts.
        ChainError: the transaction failed.
    """
    stored = await asyncio.to_thread(prepare, model, folder, profiles=profiles)
    known = await writer.reader.model(stored.model_id)
    if known is not None:
        _check(stored, known)
        return PublishedModel(stored=stored, transaction=None)
    ids = [profile.profile_id for profile in stored.manifest.profiles]
    done = await writer.publish_model(stored.model_id, stored.manifest.blocks, ids, uri)
    return PublishedModel(stored=stored, transaction=done)


def prepare(model: str | Path, folder: Path, *, profiles: Sequence[Profile] = (FP32_STRICT,)) -> StoredModel:
    """Build a model's folder without a chain; raise `ModelError` if the file cannot be used."""
    from plait_model.manifest_build import build_manifest  # noqa: PLC0415 -- torch loads only where a model is built

    embedded = str(model) if str(model) in EMBEDDED_MODELS else None
    path = find_embedded_model(embedded) if embedded else _file(model)
    template = EMBEDDED_MODELS[embedded].chat_template if embedded else None
    built = build_manifest(path, name=embedded, chat_template=template, profiles=profiles)
    return ModelStore(folder).save(
        built.manifest,
        tokenizer_json=built.tokenizer_json,
        chat_template=built.chat_template,
        tensors=built.tensors,
        source=Source.of(path, embedded=embedded),
    )


def _file(model: str | Path) -> Path:
    """Return the path; a bare word that is no file is taken for the name of an embedded model, and refused as such."""
    path = Path(model)
    if not path.exists() and path.suffix != ".gguf" and len(path.parts) == 1:
        return find_embedded_model(str(model))
    return path


def _check(stored: StoredModel, known: ModelInfo) -> None:
    ours = {profile.profile_id for profile in stored.manifest.profiles}
    if known.blocks != stored.manifest.blocks or set(known.profiles) != ours:
        raise ModelTakenError(
            f"{to_hex(stored.model_id)} was published by {to_hex(known.publisher)} with other blocks or profiles; "
            "publish the file under another name"
        )
