"""Keep published models: one folder per model id, every file checked against its hash when it is opened."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import rfc8785

from plait.protocol.errors import ManifestError
from plait.protocol.ids import Hash, keccak, to_hex
from plait.protocol.manifest import Manifest, Tensor, weights_root
from plait_model.errors import ModelNotFoundError
from plait_model.gguf import find_embedded_model
from plait_node.models.errors import ModelFileHashError, ModelFileMissingError, ModelMissingError

__all__ = ["ModelStore", "Source", "StoredModel", "read_tensors"]

MANIFEST: Final = "manifest.json"
TOKENIZER: Final = "tokenizer.json"
TEMPLATE: Final = "chat_template.jinja"
TENSORS: Final = "weights.json"
SOURCE: Final = "source.json"

_REPUBLISH: Final = "run `plait node publish` again"
MAX_FILE: Final = 64 * 1_024 * 1_024


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where this machine finds the weights; not part of the model's id.

    `partial`: a file of the model's own folder, in which only tensors that were fetched are there.
    """

    file: str
    sha256: str
    embedded: str | None
    path: str | None
    partial: bool = False

    @classmethod
    def of(cls, path: Path, *, embedded: str | None) -> Source:
        """Describe a weights file, or a folder of safetensors; reads it once."""
        where = None if embedded else str(path.resolve())
        return cls(file=path.name, sha256=_digest(path), embedded=embedded, path=where)

    def find(self) -> Path:
        """Return the weights file or folder; raise `ModelFileMissingError`."""
        if self.embedded is not None:
            try:
                return find_embedded_model(self.embedded)
            except ModelNotFoundError as error:
                raise ModelFileMissingError(Path(self.file), str(error)) from error
        path = Path(self.path or self.file)
        if not path.exists():
            raise ModelFileMissingError(path, f"put it back or {_REPUBLISH} with its new place")
        return path


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredModel:
    """One model of the store; all but the weights file was checked against the manifest."""

    manifest: Manifest
    tokenizer_json: bytes
    chat_template: str
    tensors: tuple[Tensor, ...]
    source: Source
    folder: Path

    @property
    def model_id(self) -> Hash:
        """Return the hash of the manifest."""
        return self.manifest.model_id

    def weights(self) -> Path:
        """Return the weights file or folder, its tensors unchecked: the engine checks those it loads."""
        return self.folder / self.source.file if self.source.partial else self.source.find()

    def check_weights(self) -> None:
        """Check all of the weights' bytes; raise `ModelFileHashError` or `ModelFileMissingError`."""
        path = self.weights()
        if self.source.partial:
            raise ModelFileMissingError(path, "only the tensors that were fetched are here")
        if _digest(path) != self.source.sha256:
            raise ModelFileHashError(path, f"fetch it again, or {_REPUBLISH} to serve the new one as another model")


class ModelStore:
    """The folder of published models."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def ids(self) -> list[str]:
        """Return the ids of all models here, as text."""
        return sorted(path.parent.name for path in self.folder.glob(f"0x*/{MANIFEST}"))

    def models(self) -> list[StoredModel]:
        """Open every model here; raise as `open` does."""
        return [self.open(name) for name in self.ids()]

    def open(self, model: Hash | str) -> StoredModel:
        """Open a model by id, in bytes or text, or by its manifest's name.

        Raises:
            ModelMissingError: it is not here; the message lists those that are.
            ModelFileMissingError, ModelFileHashError: a file is gone or was changed.
        """
        folder = self._folder(model if isinstance(model, str) else to_hex(model))
        content = _read(folder / MANIFEST)
        if to_hex(keccak(content)) != folder.name:
            raise ModelFileHashError(folder / MANIFEST, _REPUBLISH)
        try:
            manifest = Manifest.from_json(content)
        except ManifestError as error:
            raise ModelFileHashError(folder / MANIFEST, f"{error}; {_REPUBLISH}") from error
        return StoredModel(
            manifest=manifest,
            tokenizer_json=_checked(folder / TOKENIZER, manifest.tokenizer),
            chat_template=_checked(folder / TEMPLATE, manifest.chat_template).decode(),
            tensors=_listed(folder / TENSORS, manifest.weights),
            source=_source(folder / SOURCE),
            folder=folder,
        )

    def file(self, hashed: Hash) -> bytes | None:
        """Return the tokenizer or chat template of this keccak256, whichever model it belongs to."""
        for path in sorted(self.folder.glob("0x*/*")):
            if path.name in (TOKENIZER, TEMPLATE):
                content = _read(path)
                if keccak(content) == hashed:
                    return content
        return None

    def save(
        self,
        manifest: Manifest,
        *,
        tokenizer_json: bytes,
        chat_template: str,
        tensors: Sequence[Tensor],
        source: Source,
    ) -> StoredModel:
        """Write a model's folder, all of it or nothing, over one that may be there already."""
        self.folder.mkdir(parents=True, exist_ok=True)
        target = self.folder / to_hex(manifest.model_id)
        listed = [[tensor.name, tensor.dtype, list(tensor.shape), tensor.sha256.hex()] for tensor in tensors]
        where: dict[str, str | bool | None] = {
            "embedded": source.embedded,
            "file": source.file,
            "path": source.path,
            "sha256": source.sha256,
        }
        if source.partial:
            where["partial"] = True
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".new-") as fresh:
            made = Path(fresh) / "model"
            made.mkdir()
            (made / MANIFEST).write_bytes(manifest.to_json())
            (made / TOKENIZER).write_bytes(tokenizer_json)
            (made / TEMPLATE).write_bytes(chat_template.encode())
            (made / TENSORS).write_bytes(rfc8785.dumps(listed))
            (made / SOURCE).write_bytes(rfc8785.dumps(where))
            if target.exists():
                shutil.move(target, Path(fresh) / "old")
            made.rename(target)
        return self.open(manifest.model_id)

    def _folder(self, wanted: str) -> Path:
        names: dict[str, str] = {}
        for name in self.ids():
            if name == wanted.lower():
                return self.folder / name
            names.setdefault(_name(self.folder / name / MANIFEST), name)
        if wanted in names:
            return self.folder / names[wanted]
        known = ", ".join(f"{title} ({name[:10]}...)" for title, name in names.items()) or "none yet"
        raise ModelMissingError(f"{wanted} is not in {self.folder}; there are: {known}; run `plait node publish`")


def read_tensors(content: bytes, root: Hash) -> tuple[Tensor, ...]:
    """Read a list of tensors as it lies in a model's folder; raise `ValueError` unless it has the manifest's root."""
    try:
        rows = cast("list[list[Any]]", json.loads(content))
        found = tuple(
            Tensor(name=str(name), dtype=str(dtype), shape=tuple(map(int, shape)), sha256=bytes.fromhex(digest))
            for name, dtype, shape, digest in rows
        )
        if weights_root(found) == root:
            return found
    except (TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"no list of tensors: {error}") from error
    raise ValueError("these are not the tensors that the manifest names")


def _digest(path: Path) -> str:
    """Return a file's SHA-256; of a folder, that of the lines `sha256sum *.safetensors` prints, sorted by name."""
    if not path.is_dir():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    files = sorted(path.glob("*.safetensors"))
    return hashlib.sha256("".join(f"{_digest(file)}  {file.name}\n" for file in files).encode()).hexdigest()


def _name(path: Path) -> str:
    try:
        return Manifest.from_json(_read(path)).name
    except ManifestError:
        return "unreadable"


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_FILE:
            raise ModelFileHashError(path, _REPUBLISH)
        return path.read_bytes()
    except OSError as error:
        raise ModelFileMissingError(path, _REPUBLISH) from error


def _checked(path: Path, expected: Hash) -> bytes:
    content = _read(path)
    if keccak(content) != expected:
        raise ModelFileHashError(path, _REPUBLISH)
    return content


def _listed(path: Path, root: Hash) -> tuple[Tensor, ...]:
    try:
        return read_tensors(_read(path), root)
    except ValueError as error:
        raise ModelFileHashError(path, _REPUBLISH) from error


def _source(path: Path) -> Source:
    try:
        value = cast("dict[str, Any]", json.loads(_read(path)))
        embedded, where = value["embedded"], value["path"]
        return Source(
            file=str(value["file"]),
            sha256=str(value["sha256"]),
            embedded=None if embedded is None else str(embedded),
            path=None if where is None else str(where),
            partial=value.get("partial") is True,
        )
    except (ValueError, TypeError, KeyError) as error:
        raise ModelFileMissingError(path, f"it cannot be read; {_REPUBLISH}") from error
