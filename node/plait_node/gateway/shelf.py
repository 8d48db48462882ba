"""The published models of this machine: manifests, and the files they name by hash."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from pathlib import Path

from plait.protocol.errors import ManifestError
from plait.protocol.ids import Hash, hash32, keccak, to_hex
from plait.protocol.manifest import MAX_BYTES, Manifest
from plait_node.gateway.errors import UnknownFileError

_LOG = logging.getLogger(__name__)
_FILES = ("tokenizer.json", "chat_template.jinja")
_RESCAN_S = 5.0


class ModelShelf:
    """Reads `<folder>/<model id>/`; a model published while the gateway runs is found within seconds."""

    def __init__(self, folder: Path, clock: Callable[[], float], *, only: Collection[Hash] = ()) -> None:
        """Read `folder`; where `only` names models, the others are not here."""
        self._only = frozenset(only)
        self._folder = folder
        self._clock = clock
        self._manifests: dict[Hash, Manifest] = {}
        self._files: dict[Hash, Path] = {}
        self._scanned_at = float("-inf")

    def manifest(self, model: Hash) -> Manifest | None:
        """Return a model's manifest, if it is here."""
        if model not in self._manifests:
            self._scan()
        return self._manifests.get(model)

    def manifests(self) -> dict[Hash, Manifest]:
        """Return every manifest that is here."""
        self._scan()
        return dict(self._manifests)

    def file(self, name: Hash) -> bytes:
        """Return a file by its keccak256; raise `UnknownFileError`."""
        if name not in self._files:
            self._scan()
        path = self._files.get(name)
        try:
            data = path.read_bytes() if path else b""
        except OSError:
            data = b""
        if not path or keccak(data) != name:
            raise UnknownFileError(f"no file {to_hex(name)} here; manifests name those that are")
        return data

    def _scan(self) -> None:
        now = self._clock()
        if now - self._scanned_at < _RESCAN_S:
            return
        self._scanned_at = now
        folders = sorted(self._folder.iterdir()) if self._folder.is_dir() else []
        for folder in folders:
            if folder.is_dir() and (folder / "manifest.json").is_file():
                self._read(folder)

    def _read(self, folder: Path) -> None:
        try:
            model = hash32(folder.name)
            if model in self._manifests or (self._only and model not in self._only):
                return
            path = folder / "manifest.json"
            if path.stat().st_size > MAX_BYTES:
                raise ManifestError(f"a manifest has at most {MAX_BYTES} bytes")
            manifest = Manifest.from_json(path.read_bytes())
            if manifest.model_id != model:
                raise ManifestError("the folder's name is not the manifest's hash")
            files = {keccak(file.read_bytes()): file for name in _FILES if (file := folder / name).is_file()}
            if manifest.tokenizer not in files or manifest.chat_template not in files:
                raise ManifestError("tokenizer or chat template is missing or was changed; publish the model again")
        except (ValueError, OSError, ManifestError) as error:
            _LOG.warning("model skipped folder=%s reason=%s", folder, error)
            return
        self._manifests[model] = manifest
        self._files |= files
