"""Fetch a model that is not here: its papers, then the tensors of the blocks to serve, from any source that has them.

Nothing is believed: papers are checked against the model's id, tensors against the list under its weight root. What
came is kept, so that a fetch that was cut off goes on where it was, from the same source or another.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

import httpx

from plait.protocol.errors import ManifestError
from plait.protocol.ids import Hash, keccak, to_hex
from plait.protocol.manifest import MAX_BYTES, Manifest, Tensor
from plait_model.blank import Blank, blank, block_of
from plait_model.errors import ModelError
from plait_model.source import open_weights
from plait_node.models.errors import ModelFetchError
from plait_node.models.store import MAX_FILE, ModelStore, Source, StoredModel, read_tensors

__all__ = ["Fetcher", "block_sizes", "held_blocks"]

_AT_ONCE: Final = 4
_ROUNDS_S: Final = (0.0, 1.0, 4.0, 10.0)  # pauses before each round over all sources
_CONNECT_S, _SILENCE_S, _SLOWEST_BYTES_S = 5.0, 20.0, 64 << 10
_OK, _PARTIAL = 200, 206
_PARTS: Final = "parts"
_LOCK: Final = "fetch.lock"

_log = logging.getLogger(__name__)


class _UselessError(Exception):
    """A source does not have what was asked, or sent something else."""


@dataclass(slots=True, kw_only=True)
class Fetcher:
    """Asks base URLs in their order; each lies behind docs/protocol.md's paths of a giver of weights."""

    store: ModelStore
    sources: Sequence[str]
    rounds_s: Sequence[float] = _ROUNDS_S
    transport: httpx.AsyncBaseTransport | None = None
    _liars: set[str] = field(default_factory=set[str])

    async def papers(self, model: Hash) -> StoredModel:
        """Fetch manifest, tokenizer, chat template and list of tensors; raise `ModelFetchError`."""
        async with self._client() as client:
            for pause_s in self.rounds_s:
                await asyncio.sleep(pause_s)
                for source in self.sources:
                    try:
                        return await self._papers_from(client, source, model)
                    except (httpx.HTTPError, _UselessError, TimeoutError) as error:
                        _log.info("papers not fetched source=%s reason=%s", source, error or "late")
        raise ModelFetchError(f"{to_hex(model)} is not here, and {self._nobody()} gave its manifest and tokenizer")

    async def tensors(self, stored: StoredModel, wanted: Sequence[Tensor]) -> int:
        """Fetch those of the tensors that are not here; return the bytes that were missing. Raise `ModelFetchError`."""
        layout = _layout(stored)
        with await asyncio.to_thread(_locked, stored.folder / _LOCK):
            return await self._missing(stored, layout, wanted)

    async def _missing(self, stored: StoredModel, layout: Blank, wanted: Sequence[Tensor]) -> int:
        path = stored.weights()
        await asyncio.to_thread(_lay, path, layout)
        missing = await asyncio.to_thread(_missing, path, wanted)
        size = sum(layout.places[tensor.name][1] for tensor in missing)
        _log.info("fetching model=%s tensors=%d bytes=%d", to_hex(stored.model_id), len(missing), size)
        gate, alike = asyncio.Semaphore(_AT_ONCE), dict[bytes, list[Tensor]]()
        for tensor in missing:  # such as norms of ones: fetched once, kept in every place of theirs
            alike.setdefault(tensor.sha256, []).append(tensor)
        try:
            async with self._client() as client, asyncio.TaskGroup() as group:
                for same in alike.values():
                    group.create_task(self._tensor(client, gate, stored, layout, same))
        except* ModelFetchError as errors:
            raise _first(errors) from None
        _log.info("fetched model=%s bytes=%d", to_hex(stored.model_id), size)
        return size

    def _client(self) -> httpx.AsyncClient:
        patience = httpx.Timeout(_SILENCE_S, connect=_CONNECT_S)
        return httpx.AsyncClient(timeout=patience, transport=self.transport)

    def _nobody(self) -> str:
        return f"none of {', '.join(self.sources)}" if self.sources else "no source is known that"

    async def _papers_from(self, client: httpx.AsyncClient, source: str, model: Hash) -> StoredModel:
        raw = await _get(client, f"{source}/v1/manifests/{to_hex(model)}", MAX_BYTES)
        if keccak(raw) != model:
            raise _UselessError("its manifest has another hash")
        try:
            manifest = Manifest.from_json(raw)
        except ManifestError as error:
            raise _UselessError(f"the manifest of this model cannot be read: {error}") from error
        tokenizer, template = [
            await self._file(client, source, hashed) for hashed in (manifest.tokenizer, manifest.chat_template)
        ]
        listed = await _get(client, f"{source}/v1/weights/{to_hex(model)}", MAX_FILE)
        try:
            tensors = read_tensors(listed, manifest.weights)
            kind, text = blank(tensors).kind, template.decode()
        except (ValueError, ModelError) as error:
            raise _UselessError(f"its papers cannot be used: {error}") from error
        where = Source(file=f"weights{kind}", sha256="", embedded=None, path=None, partial=True)
        if to_hex(model) in self.store.ids():  # another process has fetched it meanwhile
            return await asyncio.to_thread(self.store.open, model)
        return await asyncio.to_thread(
            self.store.save, manifest, tokenizer_json=tokenizer, chat_template=text, tensors=tensors, source=where
        )

    async def _file(self, client: httpx.AsyncClient, source: str, hashed: Hash) -> bytes:
        data = await _get(client, f"{source}/v1/files/{to_hex(hashed)}", MAX_FILE)
        if keccak(data) != hashed:
            raise _UselessError("a file of it has another hash")
        return data

    async def _tensor(
        self,
        client: httpx.AsyncClient,
        gate: asyncio.Semaphore,
        stored: StoredModel,
        layout: Blank,
        same: Sequence[Tensor],
    ) -> None:
        """Fetch what some tensors have in common."""
        tensor, offsets = same[0], [layout.places[each.name][0] for each in same]
        part = _Part(path=stored.folder / _PARTS / tensor.sha256.hex(), size=layout.places[tensor.name][1])
        async with gate:
            for pause_s in self.rounds_s:
                await asyncio.sleep(pause_s)
                for source in self.sources:
                    if source not in self._liars and await self._whole(client, source, tensor, part):
                        await asyncio.to_thread(part.place, stored.weights(), offsets)
                        return
        raise ModelFetchError(f"tensor {tensor.name} is not here, and {self._nobody()} gave it; name others in `fetch`")

    async def _whole(self, client: httpx.AsyncClient, source: str, tensor: Tensor, part: _Part) -> bool:
        """Get the rest of a tensor; tell whether it is whole and right. What came before may be what is wrong."""
        resumed = part.came() > 0
        try:
            async with asyncio.timeout(_SILENCE_S + part.size / _SLOWEST_BYTES_S):
                await _download(client, f"{source}/v1/tensors/{to_hex(tensor.sha256)}", part)
        except (httpx.HTTPError, _UselessError, TimeoutError) as error:
            _log.info("tensor not fetched name=%s source=%s reason=%s", tensor.name, source, error or "late")
            return False
        except OSError as error:
            text = f"{part.path} cannot be written ({error.strerror}); make room and start again"
            raise ModelFetchError(text) from error
        if await asyncio.to_thread(part.digest) == tensor.sha256:
            return True
        part.drop()
        if resumed:
            return await self._whole(client, source, tensor, part)
        self._liars.add(source)
        _log.warning("source gives wrong bytes source=%s tensor=%s", source, tensor.name)
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """What came of a tensor of `size` bytes."""

    path: Path
    size: int

    def came(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def drop(self) -> None:
        self.path.unlink()

    def digest(self) -> bytes:
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()

    def place(self, file: Path, offsets: Sequence[int]) -> None:
        """Copy the tensor into its places; the part goes once they are on the disk."""
        with file.open("r+b") as into:
            for offset in offsets:
                into.seek(offset)
                with self.path.open("rb") as read:
                    shutil.copyfileobj(read, into, 1 << 20)
            into.flush()
            os.fsync(into.fileno())
        self.drop()


def block_sizes(stored: StoredModel) -> list[int]:
    """Return the bytes of each block's tensors."""
    sizes, places = [0] * stored.manifest.blocks, _layout(stored).places
    for tensor in stored.tensors:
        block = block_of(tensor.name)
        if block is not None and block < len(sizes):
            sizes[block] += places[tensor.name][1]
    return sizes


def held_blocks(stored: StoredModel) -> set[int]:
    """Return the blocks of which every tensor is here; reads and hashes what is."""
    if not stored.weights().exists():
        return set()
    lacking = {block_of(tensor.name) for tensor in _missing(stored.weights(), stored.tensors)}
    return set(range(stored.manifest.blocks)) - lacking


def _layout(stored: StoredModel) -> Blank:
    try:
        return blank(stored.tensors)
    except ModelError as error:
        raise ModelFetchError(f"the tensors of {to_hex(stored.model_id)} cannot be laid out: {error}") from error


def _locked(path: Path) -> BinaryIO:
    """Wait until no other process fetches into this folder; return what holds the lock until it is closed."""
    file = path.open("ab")
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def _lay(path: Path, layout: Blank) -> None:
    """Make the file with empty places; one that is there and was made of the same list stays."""
    (path.parent / _PARTS).mkdir(exist_ok=True)
    if path.exists() and path.stat().st_size == layout.size:
        with path.open("rb") as file:
            if file.read(len(layout.head)) == layout.head:
                return
    fresh = path.with_suffix(".new")
    with fresh.open("wb") as file:
        file.write(layout.head)
        file.truncate(layout.size)
    fresh.replace(path)


def _missing(path: Path, wanted: Sequence[Tensor]) -> list[Tensor]:
    with open_weights(path) as file:
        return [tensor for tensor in wanted if file.describe(tensor.name) != tensor]


async def _get(client: httpx.AsyncClient, url: str, most: int) -> bytes:
    """Return a small file of at most so many bytes."""
    data = bytearray()
    async with asyncio.timeout(_SILENCE_S + most / _SLOWEST_BYTES_S), client.stream("GET", url) as answer:
        if answer.status_code != _OK:
            raise _UselessError(f"it answers {answer.status_code}")
        async for piece in answer.aiter_bytes():
            data += piece
            if len(data) > most:
                raise _UselessError(f"it sends more than {most} bytes")
    return bytes(data)


async def _download(client: httpx.AsyncClient, url: str, part: _Part) -> None:
    """Append the rest of a tensor to its part; a source that does not go on from a place begins anew."""
    have = part.came()
    if have >= part.size:
        return
    # What is asked is what is hashed: no encoding on the way.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    async with client.stream("GET", url, headers=headers) as answer:
        going_on = answer.status_code == _PARTIAL
        if going_on and not answer.headers.get("content-range", "").startswith(f"bytes {have}-"):
            raise _UselessError("it sends another range than was asked for")
        if not going_on and answer.status_code != _OK:
            raise _UselessError(f"it answers {answer.status_code}")
        with part.path.open("ab" if going_on else "wb") as file:
            async for piece in answer.aiter_raw():
                await asyncio.to_thread(file.write, piece)
                if file.tell() > part.size:
                    file.truncate(0)
                    raise _UselessError(f"it sends more than {part.size} bytes")
    if part.came() < part.size:
        raise _UselessError("it ended before the tensor did")


def _first(errors: BaseExceptionGroup[ModelFetchError]) -> ModelFetchError:
    found = errors.exceptions[0]
    return found if isinstance(found, ModelFetchError) else _first(found)
