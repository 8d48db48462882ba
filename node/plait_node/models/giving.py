"""Give models to nodes that join: their papers, and single tensors by the SHA-256 of their bytes, over plain HTTP.

Whoever fetches checks every byte against the model's id, so neither a signature nor TLS is needed. The same paths may
lie on any static server (docs/protocol.md section 8).
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from plait.protocol.errors import PlaitError
from plait.protocol.ids import hash32
from plait_model.errors import ModelError
from plait_model.source import WeightFile, open_weights
from plait_node.models.errors import ModelStoreError
from plait_node.models.store import MANIFEST, TENSORS, ModelStore, StoredModel

__all__ = ["TensorShelf", "make_weights_app"]

_AT_ONCE: Final = 8
_AGAIN_S: Final = "2"
_PIECE: Final = 256 << 10
_FROM: Final = re.compile(r"bytes=([0-9]{1,15})-", re.ASCII)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One tensor of an open file."""

    file: WeightFile
    name: str
    size: int


class TensorShelf:
    """The models of a folder as they were when it was made, but for tensors, which are looked at when asked for."""

    def __init__(self, folder: Path) -> None:
        """Open what is there; a model whose weights are gone gives its papers alone."""
        store = ModelStore(folder)
        models = list(_readable(store))
        self._papers = {each.model_id: each.folder for each in models}
        self._store = store
        self._where: dict[bytes, list[tuple[StoredModel, str]]] = {}
        for each in models:
            for tensor in each.tensors:  # several may have the same bytes, and only some of them be here
                self._where.setdefault(tensor.sha256, []).append((each, tensor.name))
        self._open: dict[Path, WeightFile] = {}
        self._found: dict[bytes, Found | None] = {}

    def paper(self, model: bytes, name: str) -> bytes | None:
        """Return a model's manifest or its list of tensors."""
        folder = self._papers.get(hash32(model))
        return (folder / name).read_bytes() if folder is not None else None

    def file(self, hashed: bytes) -> bytes | None:
        """Return a tokenizer or chat template by its keccak256."""
        return self._store.file(hash32(hashed))

    def tensor(self, sha256: bytes) -> Found | None:
        """Return a tensor whose bytes are all here; reads and hashes them the first time."""
        if sha256 not in self._found:
            self._found[sha256] = self._look(sha256)
        return self._found[sha256]

    def _look(self, sha256: bytes) -> Found | None:
        for stored, name in self._where.get(sha256, ()):
            try:
                path = stored.weights()
                file = self._open.get(path) or self._open.setdefault(path, open_weights(path))
                whole = file.describe(name).sha256 == sha256
            except (ModelError, PlaitError) as error:
                _log.debug("tensor not given name=%s reason=%s", name, error)
                continue
            if whole:
                return Found(file=file, name=name, size=file.size(name))
        return None

    def close(self) -> None:
        """Close the files."""
        for file in self._open.values():
            file.close()


def _readable(store: ModelStore) -> Iterator[StoredModel]:
    for name in store.ids():
        try:
            yield store.open(name)
        except ModelStoreError as error:
            _log.warning("model not given model=%s reason=%s", name, error)


class _Face:
    def __init__(self, shelf: TensorShelf, bytes_a_second: int) -> None:
        self._shelf = shelf
        self._rate = bytes_a_second
        self._due = 0.0  # loop time at which what was sent has been paid for
        self._gate = asyncio.Semaphore(_AT_ONCE)
        self._looking = asyncio.Lock()

    async def manifest(self, request: Request) -> Response:
        return self._paper(request, MANIFEST)

    async def weights(self, request: Request) -> Response:
        return self._paper(request, TENSORS)

    async def file(self, request: Request) -> Response:
        data = self._shelf.file(_id(request))
        return _nothing() if data is None else Response(data, media_type="application/octet-stream")

    async def tensor(self, request: Request) -> Response:
        if self._gate.locked():
            text = f"{_AT_ONCE} tensors are on their way; try again later"
            return PlainTextResponse(text, status_code=503, headers={"Retry-After": _AGAIN_S})
        async with self._looking:
            found = await asyncio.to_thread(self._shelf.tensor, _id(request))
        if found is None:
            return _nothing()
        asked = _FROM.fullmatch(request.headers.get("range", ""))
        first = int(asked[1]) if asked else 0
        if first >= found.size and asked:
            return Response(status_code=416, headers={"Content-Range": f"bytes */{found.size}"})
        headers = {"Content-Length": str(found.size - first), "Accept-Ranges": "bytes"}
        if asked:
            headers["Content-Range"] = f"bytes {first}-{found.size - 1}/{found.size}"
        pieces = () if request.method == "HEAD" else self._pieces(found, first)
        return StreamingResponse(
            pieces, status_code=206 if asked else 200, headers=headers, media_type="application/octet-stream"
        )

    def _paper(self, request: Request, name: str) -> Response:
        data = self._shelf.paper(_id(request), name)
        return _nothing() if data is None else Response(data, media_type="application/json")

    async def _pieces(self, found: Found, first: int) -> AsyncIterator[bytes]:
        async with self._gate:
            for at in range(first, found.size, _PIECE):
                piece = await asyncio.to_thread(found.file.piece, found.name, at, at + _PIECE)
                await self._wait_for(len(piece))
                yield piece

    async def _wait_for(self, size: int) -> None:
        """Hold all that is sent to the rate."""
        now = asyncio.get_running_loop().time()
        self._due = max(self._due, now) + size / self._rate
        await asyncio.sleep(self._due - now)


def make_weights_app(shelf: TensorShelf, *, bytes_a_second: int) -> Starlette:
    """Return the application that gives a shelf's models, all together at most so many bytes a second."""
    face = _Face(shelf, bytes_a_second)
    return Starlette(
        routes=[
            Route("/v1/manifests/{id}", _answered(face.manifest)),
            Route("/v1/files/{id}", _answered(face.file)),
            Route("/v1/weights/{id}", _answered(face.weights)),
            Route("/v1/tensors/{id}", _answered(face.tensor)),
        ]
    )


def _answered(endpoint: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    async def call(request: Request) -> Response:
        try:
            return await endpoint(request)
        except (PlaitError, OSError) as error:
            return PlainTextResponse(str(error), status_code=400 if isinstance(error, PlaitError) else 404)

    return call


def _id(request: Request) -> bytes:
    return hash32(request.path_params["id"])


def _nothing() -> Response:
    return PlainTextResponse("nothing of that name is here", status_code=404)
