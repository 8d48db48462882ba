"""Models that are not in the folder: fetched from where the configuration and the chain say; and given to others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from plait.protocol.ids import Hash
from plait_model.blank import needed
from plait_node.app.base import Base, background
from plait_node.app.place import Load
from plait_node.listener import serve_app
from plait_node.models import StoredModel
from plait_node.models.errors import ModelMissingError
from plait_node.models.fetching import Fetcher, block_sizes, held_blocks
from plait_node.models.giving import TensorShelf, make_weights_app

__all__ = ["fetch_blocks", "giving", "load_of", "opened_model"]

_CHAIN = "chain"


async def opened_model(base: Base, model: Hash) -> StoredModel:
    """Return a model of the folder, its manifest and tokenizer fetched where they are not there.

    Raise `ModelStoreError`.
    """
    try:
        return await asyncio.to_thread(base.store.open, model)
    except ModelMissingError:
        if not base.config.fetch:
            raise
    return await (await _fetcher(base, model)).papers(model)


async def fetch_blocks(base: Base, stored: StoredModel, *, first: int, last: int) -> None:
    """Fetch what blocks first to last - 1 need and is not here; raise `ModelFetchError`."""
    if stored.source.partial:
        wanted = needed(stored.tensors, first=first, last=last, blocks=stored.manifest.blocks)
        await (await _fetcher(base, stored.model_id)).tensors(stored, wanted)


def load_of(stored: StoredModel) -> Load | None:
    """Return what each block would have to be fetched for; none where all of the model is here. Reads what is."""
    return Load(sizes=block_sizes(stored), held=held_blocks(stored)) if stored.source.partial else None


@asynccontextmanager
async def giving(base: Base) -> AsyncGenerator[dict[str, object]]:
    """Give this node's models to others for as long as the block lasts, where it is configured to."""
    config = base.config.give
    if config is None:
        yield {}
        return
    shelf = await asyncio.to_thread(TensorShelf, base.config.models)
    listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    app, host = make_weights_app(shelf, bytes_a_second=config.mib << 20), config.listen.host
    try:
        async with background(serve_app(app, host=host, port=config.listen.port, ready=listening.set_result)):
            yield {"weights": f"http://{host}:{await listening}"}
    finally:
        shelf.close()


async def _fetcher(base: Base, model: Hash) -> Fetcher:
    sources: list[str] = []
    for each in base.config.fetch:
        sources += await _named_on_chain(base, model) if each == _CHAIN else [each]
    return Fetcher(store=base.store, sources=tuple(dict.fromkeys(sources)))


async def _named_on_chain(base: Base, model: Hash) -> list[str]:
    info = await base.reader.model(model)
    uri = info.uri.rstrip("/") if info is not None else ""
    return ([uri] if uri.startswith(("http://", "https://")) else []) + await base.nodes.givers()
