"""The asynchronous client; the synchronous one drives it from another thread."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, overload

import httpx

from plait.chain.deployments import Deployment
from plait.client.answers import ChatCompletion, Model
from plait.client.archive import Archive
from plait.client.call import Call, ChatMessage, check_call
from plait.client.catalogue import Catalogue, Served
from plait.client.edge import ChainEdge, RpcEdge
from plait.client.jobs import AsyncJobs, AsyncNodes
from plait.client.market import Wanted, allowed_profiles, best_offer
from plait.client.onchain import AsyncRequests
from plait.client.patience import patient
from plait.client.purse import Purse
from plait.client.run import Run, prepare
from plait.client.settings import Settings, settle
from plait.client.stream import AsyncStream
from plait.protocol.ids import to_hex
from plait.protocol.typed import Key

Connect = Callable[[Settings], Awaitable[ChainEdge]]

_QUOTE_PATIENCE_S = 30.0  # with gateways that have no worker now


class AsyncPlait:
    """Ask models that staked nodes serve; every answer is checked before it is paid.

    Settings come from the argument, else from PLAIT_RPC, PLAIT_DEPLOYMENT, PLAIT_KEY, PLAIT_HOME, PLAIT_PROFILES, else
    the default.
    `gateway` names one by its owner's address; `max_price` and `deposit` are base units of the token; `timeout` is
    the seconds a request may take; `profiles` names the numerics that requests may run under, the best one first (all
    that a model has, unless named). The folder `home` keeps what was promised: lose it, and open channels must wait
    for their exit.
    """

    def __init__(
        self,
        *,
        rpc: str | None = None,
        deployment: Deployment | Path | str | None = None,
        key: Key | str | None = None,
        home: Path | str | None = None,
        gateway: str | bytes | None = None,
        max_price: int | None = None,
        deposit: int | None = None,
        timeout: float | None = None,
        profiles: Sequence[str] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        connect: Connect = RpcEdge.connect,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settle(
            rpc=rpc,
            deployment=deployment,
            key=key,
            home=home,
            gateway=gateway,
            max_price=max_price,
            deposit=deposit,
            timeout=timeout,
            profiles=profiles,
        )
        self._connect, self._clock = connect, clock
        self._http = httpx.AsyncClient(transport=transport, limits=httpx.Limits(max_connections=64))
        self._edge: ChainEdge | None = None
        self._catalogue: Catalogue | None = None
        self._purse: Purse | None = None
        self.chat = AsyncChat(self)
        self.models = AsyncModels(self)
        self.jobs = AsyncJobs(self)
        self.nodes = AsyncNodes(self)
        self.requests = AsyncRequests(self)

    async def edge(self) -> ChainEdge:
        """Return the chain, connected and checked at the first call."""
        if self._edge is None:
            self._edge = await self._connect(self.settings)
        return self._edge

    async def catalogue(self) -> Catalogue:
        """Return what is served."""
        if self._catalogue is None:
            files = self.settings.home / "files"
            self._catalogue = Catalogue(await self.edge(), self._http, files, self.settings.gateway)
        return self._catalogue

    async def purse(self) -> Purse:
        """Return the payer's money; raise `SettingsError` without a key."""
        if self._purse is None:
            self._purse = Purse(self.settings, await self.edge(), await self.folder(), self._clock)
        return self._purse

    async def archive(self) -> Archive:
        """Return the requests that this wallet made."""
        return Archive(await self.folder() / "requests")

    async def folder(self) -> Path:
        """Return where this wallet's state on this deployment lives."""
        edge = await self.edge()
        return self.settings.home / edge.identity.hex()[:16] / to_hex(self.settings.payer().address)

    def now(self) -> float:
        """Return the time, in Unix seconds."""
        return self._clock()

    async def prepare(self, call: Call, ids: Callable[[Served], list[int]] | None = None) -> Run:
        """Find an offer for a call and return its run, of which nothing is paid or sent yet.

        `ids` gives the prompt in place of the call's messages.
        """
        self.settings.payer()
        edge, catalogue = await self.edge(), await self.catalogue()
        patience_s = min(_QUOTE_PATIENCE_S, call.timeout_s / 2)
        served = await patient(lambda: catalogue.find(call.model), patience_s=patience_s)
        prompt = served.tokenizer.render(call.messages) if ids is None else ids(served)
        wanted = Wanted(
            input_tokens=len(prompt),
            max_tokens=call.max_tokens,
            max_price=call.max_price,
            profiles=allowed_profiles(served.manifest, self.settings.profiles),
        )
        offer = await patient(lambda: best_offer(edge, served, wanted, self._clock), patience_s=patience_s)
        purse = await self.purse()
        prepared = prepare(call, served, offer, prompt, purse=purse, now=self._clock())
        return Run(prepared, edge=edge, purse=purse, archive=await self.archive(), clock=self._clock)

    async def start(self, call: Call) -> AsyncStream:
        """Find an offer for a call, pay its input, submit it, and return the stream of its answer."""
        run = await self.prepare(call)
        await run.submit()
        return AsyncStream(run, created=int(self._clock()))

    async def close(self) -> None:
        """Close connections and journal; what was signed stays on disk."""
        await self._http.aclose()
        if self._purse is not None:
            self._purse.close()
        if self._edge is not None:
            await self._edge.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class AsyncChat:
    """The namespace `chat`."""

    def __init__(self, client: AsyncPlait) -> None:
        self.completions = AsyncCompletions(client)


class AsyncCompletions:
    """The namespace `chat.completions`."""

    def __init__(self, client: AsyncPlait) -> None:
        self._client = client

    @overload
    async def create(
        self,
        *,
        model: str,
        messages: Sequence[ChatMessage],
        stream: Literal[False] = False,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        top_k: int | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] | None = None,
        max_price: int | None = None,
        timeout: float | None = None,
    ) -> ChatCompletion: ...
    @overload
    async def create(
        self,
        *,
        model: str,
        messages: Sequence[ChatMessage],
        stream: Literal[True],
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        top_k: int | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] | None = None,
        max_price: int | None = None,
        timeout: float | None = None,
    ) -> AsyncStream: ...
    async def create(
        self,
        *,
        model: str,
        messages: Sequence[ChatMessage],
        stream: bool = False,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        top_k: int | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] | None = None,
        max_price: int | None = None,
        timeout: float | None = None,
    ) -> ChatCompletion | AsyncStream:
        """Ask a model, by name or 0x id; with `stream`, return an iterator of chunks whose `.completion` is the whole.

        A new channel is opened where there is none (one transaction; two with a token that has no permits).
        `max_price` is the most the request may cost, in base units. Raise a `PlaitError`: a `VerificationError` when
        the answer fails a check, and then nothing more was paid.
        """
        settings = self._client.settings
        call = check_call(
            model=model,
            messages=messages,
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            seed=seed,
            stop=stop,
            max_price=settings.max_price if max_price is None else max_price,
            timeout_s=settings.timeout_s if timeout is None else timeout,
        )
        answer = await self._client.start(call)
        if stream:
            return answer
        async with answer:
            async for _ in answer:
                pass
        return answer.completion


class AsyncModels:
    """The namespace `models`."""

    def __init__(self, client: AsyncPlait) -> None:
        self._client = client

    async def list(self) -> list[Model]:
        """Return the models that staked gateways serve now."""
        return await (await self._client.catalogue()).models()


__all__ = ["AsyncPlait", "AsyncStream"]
