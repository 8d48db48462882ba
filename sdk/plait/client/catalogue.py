"""Which gateways there are, which models they serve, and the files of those models, checked by hash."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import httpx

from plait.chain.reader import NodeInfo
from plait.client.answers import Model
from plait.client.edge import ChainEdge
from plait.client.errors import AmbiguousModelError, GatewayAnswerError, NoGatewayError
from plait.client.gateway import GatewayClient
from plait.protocol.endpoints import endpoints
from plait.protocol.errors import MalformedMessageError, PlaitError, UnknownModelError
from plait.protocol.ids import Address, Hash, hash32, keccak, to_hex
from plait.protocol.manifest import Manifest
from plait.protocol.tokens import ChatTokenizer

Offered: TypeAlias = dict[Hash, list[GatewayClient]]

MOST_GATEWAYS = 8  # asked what they serve
MOST_QUOTES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A model with its manifest and tokenizer, and the gateways that say they serve it."""

    manifest: Manifest
    tokenizer: ChatTokenizer
    gateways: tuple[GatewayClient, ...]


class Catalogue:
    """Looks gateways up on chain and models up at gateways; files are kept by their hash."""

    def __init__(self, edge: ChainEdge, http: httpx.AsyncClient, folder: Path, only: Address | None) -> None:
        self._edge, self._http, self._folder, self._only = edge, http, folder, only
        self._known: dict[Hash, tuple[Manifest, ChatTokenizer]] = {}
        self._clients: dict[tuple[Address, str], GatewayClient] = {}

    async def gateways(self) -> list[GatewayClient]:
        """Return staked gateways with an HTTP endpoint, in random order; raise `NoGatewayError`."""
        nodes = [node for node in await self._edge.gateways() if self._only in (None, node.owner)]
        found = [client for node in nodes if (client := self._client(node)) is not None]
        if not found:
            named = f" {to_hex(self._only)}" if self._only else ""
            raise NoGatewayError(f"no staked gateway{named} with an HTTP endpoint is registered on this chain")
        random.shuffle(found)
        return found[:MOST_GATEWAYS]

    async def gateway(self, owner: Address) -> GatewayClient:
        """Return one gateway, staked or not any more; raise `NoGatewayError` when it names no HTTP endpoint."""
        node = await self._edge.node(owner)
        client = self._client(node) if node else None
        if client is None:
            raise NoGatewayError(f"gateway {to_hex(owner)} names no HTTP endpoint on this chain")
        return client

    def _client(self, node: NodeInfo) -> GatewayClient | None:
        """Return a node's gateways, as one client for as long as their endpoint stays: it knows where a channel is."""
        key = node.owner, node.endpoint
        if key not in self._clients and (faces := _faces(node)):
            random.shuffle(faces)
            self._clients[key] = GatewayClient(node.owner, faces[0], self._http, faces[1:])
        return self._clients.get(key)

    async def models(self) -> list[Model]:
        """Return the models that gateways offer now; names are those of the manifests' own bytes."""
        served, _ = await self._offers()
        found: list[Model] = []
        for model, gateways in served.items():
            manifest = await self._manifest(model, gateways)
            owners = tuple(to_hex(each.owner) for each in gateways)
            found.append(Model(id=to_hex(model), name=manifest.name, gateways=owners))
        return sorted(found, key=lambda each: (each.name, each.id))

    async def find(self, name: str) -> Served:
        """Return a model by name or 0x id; raise `UnknownModelError` with what there is, `AmbiguousModelError`.

        One that no worker serves now is found as well, where none of its name is served: the gateways that keep it
        say in place of a quote when to come back.
        """
        served, resting = await self._offers()
        where = served
        matching = await self._matching(name, served)
        if not matching:
            where = resting
            matching = await self._matching(name, resting)
        if not matching:
            raise UnknownModelError(f"no gateway serves {name!r}; {await self._listing(served, resting)}")
        if len(matching) > 1:
            raise AmbiguousModelError(name, [to_hex(each) for each in matching])
        manifest, tokenizer = await self._files(matching[0], where[matching[0]])
        return Served(manifest=manifest, tokenizer=tokenizer, gateways=tuple(where[matching[0]]))

    async def _matching(self, name: str, models: Offered) -> list[Hash]:
        if name.startswith("0x") and len(name) == 66:
            return [hash32(name)] if hash32(name) in models else []
        return [
            model
            for model, gateways in models.items()
            if (await self._manifest(model, gateways)).name.casefold() == name.casefold()
        ]

    async def _offers(self) -> tuple[Offered, Offered]:
        """Return which gateways offer which models now, and which keep one that no worker of theirs serves now."""
        gateways = await self.gateways()
        answers = await asyncio.gather(*(each.models() for each in gateways), return_exceptions=True)
        served: Offered = {}
        resting: Offered = {}
        refused: list[PlaitError] = []
        for gateway, answer in zip(gateways, answers, strict=True):
            if isinstance(answer, PlaitError):
                refused.append(answer)
            elif isinstance(answer, BaseException):
                raise answer
            else:
                for model, live in answer.items():
                    (served if live else resting).setdefault(model, []).append(gateway)
        if len(refused) == len(gateways):
            error = NoGatewayError("no staked gateway says what it serves", [each.text for each in refused])
            error.retry_after_s = min((each.retry_after_s for each in refused if each.retry_after_s > 0), default=0.0)
            raise error
        return served, resting

    async def _listing(self, served: Offered, resting: Offered) -> str:
        idle = {model: gateways for model, gateways in resting.items() if model not in served}
        text = f"served now: {await self._names(served) or 'nothing'}"
        return f"{text}; without a worker for the moment: {await self._names(idle)}" if idle else text

    async def _names(self, models: Offered) -> str:
        names = [f"{(await self._manifest(each, gateways)).name} ({to_hex(each)})" for each, gateways in models.items()]
        return ", ".join(sorted(names))

    async def _manifest(self, model: Hash, gateways: Iterable[GatewayClient]) -> Manifest:
        if model in self._known:
            return self._known[model][0]
        return Manifest.from_json(await self._file(model, gateways, manifest=True))

    async def _files(self, model: Hash, gateways: list[GatewayClient]) -> tuple[Manifest, ChatTokenizer]:
        if model not in self._known:
            manifest = await self._manifest(model, gateways)
            published = await self._edge.model(model)
            if published is None or published.blocks != manifest.blocks:
                raise UnknownModelError(f"model {to_hex(model)} is not published on this chain as its manifest says")
            template = await self._file(manifest.chat_template, gateways)
            words = await self._file(manifest.tokenizer, gateways)
            tokenizer = ChatTokenizer.of(manifest, tokenizer_json=words, chat_template=template)
            self._known[model] = manifest, tokenizer
        return self._known[model]

    async def _file(self, name: Hash, gateways: Iterable[GatewayClient], *, manifest: bool = False) -> bytes:
        kept = self._folder / to_hex(name)
        if kept.exists() and keccak(data := kept.read_bytes()) == name:
            return data
        reasons: list[str] = []
        for gateway in gateways:
            try:
                data = await (gateway.manifest(name) if manifest else gateway.file(name))
                if keccak(data) != name:
                    raise GatewayAnswerError(gateway.url, f"its file {to_hex(name)} has another hash")
            except PlaitError as error:
                reasons.append(error.text)
            else:
                _keep(kept, data)
                return data
        raise NoGatewayError(f"no gateway gives the file {to_hex(name)}", reasons)


def _keep(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_bytes(data)
    draft.replace(path)


def _faces(node: NodeInfo) -> list[str]:
    try:
        found = endpoints(node.endpoint)
    except MalformedMessageError:
        return []
    return [found.http, *found.others] if found.http else []
