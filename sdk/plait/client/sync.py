"""The synchronous client: the asynchronous one, driven from a thread of its own."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, overload

import httpx

from plait.chain.deployments import Deployment
from plait.client.answers import (
    ChatCompletion,
    ChatCompletionChunk,
    JobInfo,
    JobStatus,
    Model,
    Node,
    OnChainAnswer,
    Usage,
)
from plait.client.call import ChatMessage
from plait.client.core import AsyncPlait, Connect
from plait.client.delivery import PreparedPrompt
from plait.client.edge import RpcEdge
from plait.client.errors import ClientError
from plait.client.stream import AsyncStream
from plait.protocol.sealing import ContentKey
from plait.protocol.typed import Key

T = TypeVar("T")

_STOP_S = 10.0


class Loop:
    """An event loop in a daemon thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="plait", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there and wait for it; an interrupt here cancels it there."""
        if self._loop.is_closed():
            work.close()
            raise ClientError("this client was closed; make a new one")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """End the thread."""
        if self._loop.is_closed():
            return
        self.run(self._loop.shutdown_asyncgens())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_STOP_S)
        self._loop.close()


class Stream:
    """Chunks of one answer. Leaving it early cancels the job; `completion` is there once it ended."""

    def __init__(self, inner: AsyncStream, loop: Loop) -> None:
        self._inner, self._loop = inner, loop
        self.id = inner.id

    @property
    def usage(self) -> Usage:
        """Return the tokens so far."""
        return self._inner.usage

    @property
    def job(self) -> JobInfo | None:
        """Return who works on the answer now, None before the first record; the method comes with the whole."""
        return self._inner.job

    @property
    def verified_tokens(self) -> int:
        """Return how many tokens of the answer have passed L0."""
        return self._inner.verified_tokens

    @property
    def paid(self) -> int:
        """Return what was signed away for this answer so far, in base units."""
        return self._loop.run(_value(lambda: self._inner.paid))

    @property
    def completion(self) -> ChatCompletion:
        """Return the whole answer; raise `ClientError` before its end."""
        return self._inner.completion

    def price_of(self, tokens: int) -> int:
        """Return the price of the prompt and `tokens` tokens of answer under the quote, in base units."""
        return self._inner.price_of(tokens)

    def __iter__(self) -> Iterator[ChatCompletionChunk]:
        return self

    def __next__(self) -> ChatCompletionChunk:
        try:
            return self._loop.run(self._inner.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None

    def close(self) -> None:
        """Stop the answer if it still runs, and pay what was checked of it."""
        self._loop.run(self._inner.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Plait:
    """Ask models that staked nodes serve; every answer is checked before it is paid.

    Settings come from the argument, else from PLAIT_RPC, PLAIT_DEPLOYMENT, PLAIT_KEY, PLAIT_HOME, PLAIT_PROFILES, else
    the default.
    `gateway` names one by its owner's address; `max_price` and `deposit` are base units of the token; `timeout` is
    the seconds a request may take; `profiles` names the numerics that requests may run under, the best one first (all
    that a model has, unless named). The folder `home` keeps what was promised: lose it, and open channels must wait
    for their exit. Close the client, or use it in a `with` block.
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
        self._inner = AsyncPlait(
            rpc=rpc,
            deployment=deployment,
            key=key,
            home=home,
            gateway=gateway,
            max_price=max_price,
            deposit=deposit,
            timeout=timeout,
            profiles=profiles,
            transport=transport,
            connect=connect,
            clock=clock,
        )
        self._loop = Loop()
        self.chat = Chat(self._inner, self._loop)
        self.models = Models(self._inner, self._loop)
        self.jobs = Jobs(self._inner, self._loop)
        self.nodes = Nodes(self._inner, self._loop)
        self.requests = Requests(self._inner, self._loop)

    def close(self) -> None:
        """Close connections, journal and thread; what was signed stays on disk."""
        try:
            self._loop.run(self._inner.close())
        finally:
            self._loop.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Chat:
    """The namespace `chat`."""

    def __init__(self, inner: AsyncPlait, loop: Loop) -> None:
        self.completions = Completions(inner, loop)


class Completions:
    """The namespace `chat.completions`."""

    def __init__(self, inner: AsyncPlait, loop: Loop) -> None:
        self._inner, self._loop = inner, loop

    @overload
    def create(
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
    def create(
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
    ) -> Stream: ...
    def create(self, *, stream: bool = False, **arguments: Any) -> ChatCompletion | Stream:
        """Ask a model, by name or 0x id; see `AsyncPlait.chat.completions.create`."""
        create = self._inner.chat.completions.create
        if stream:
            return Stream(self._loop.run(create(stream=True, **arguments)), self._loop)
        return self._loop.run(create(stream=False, **arguments))


class Models:
    """The namespace `models`."""

    def __init__(self, inner: AsyncPlait, loop: Loop) -> None:
        self._inner, self._loop = inner, loop

    def list(self) -> list[Model]:
        """Return the models that staked gateways serve now."""
        return self._loop.run(self._inner.models.list())


class Jobs:
    """The namespace `jobs`."""

    def __init__(self, inner: AsyncPlait, loop: Loop) -> None:
        self._inner, self._loop = inner, loop

    def get(self, request: str) -> JobStatus:
        """Return where a job of this wallet stands; raise `UnknownRequestError`."""
        return self._loop.run(self._inner.jobs.get(request))

    def list(self) -> list[JobStatus]:
        """Return where all jobs of this wallet stand."""
        return self._loop.run(self._inner.jobs.list())


class Nodes:
    """The namespace `nodes`."""

    def __init__(self, inner: AsyncPlait, loop: Loop) -> None:
        self._inner, self._loop = inner, loop

    def get(self, owner: str) -> Node:
        """Return a node as the chain has it; raise `UnknownRequestError` when nobody registered under this address."""
        return self._loop.run(self._inner.nodes.get(owner))


class Requests:
    """The namespace `requests`: the answer is public, on chain, for ever; the prompt too, unless you say otherwise."""

    def __init__(self, inner: AsyncPlait, loop: Loop) -> None:
        self._inner, self._loop = inner, loop

    def submit(
        self,
        *,
        model: str,
        messages: Sequence[ChatMessage],
        fee: int,
        max_tokens: int = 64,
        temperature: float = 0.0,
        deadline_s: int = 600,
        exclusive_s: int | None = None,
        publish_prompt: bool = True,
    ) -> int:
        """Put `fee` base units in escrow for an answer within `deadline_s` seconds; return the request's number.

        Only the node can end the request for `exclusive_s` seconds; with `publish_prompt=False` only the node's
        workers get to read the prompt; see `AsyncPlait.requests.submit`.
        """
        return self._loop.run(
            self._inner.requests.submit(
                model=model,
                messages=messages,
                fee=fee,
                max_tokens=max_tokens,
                temperature=temperature,
                deadline_s=deadline_s,
                exclusive_s=exclusive_s,
                publish_prompt=publish_prompt,
            )
        )

    def prepare(self, *, model: str, messages: Sequence[ChatMessage]) -> PreparedPrompt:
        """Render a prompt for a contract that asks, under a fresh content key; nothing is sent."""
        return self._loop.run(self._inner.requests.prepare(model=model, messages=messages))

    def deliver_prompt(
        self,
        request: int,
        *,
        content_key: ContentKey | bytes,
        messages: Sequence[ChatMessage] | None = None,
        ids: Sequence[int] | None = None,
    ) -> None:
        """Bring the prompt of a request that was made by commitment to its node; see `AsyncPlait.requests`."""
        self._loop.run(
            self._inner.requests.deliver_prompt(request, content_key=content_key, messages=messages, ids=ids)
        )

    def cancel(self, request: int) -> str:
        """End one of this wallet's requests after its exclusive period; return the transaction that brings the fee."""
        return self._loop.run(self._inner.requests.cancel(request))

    def refund(self, request: int) -> str:
        """Send a request's fee back to its payer after its deadline; return the transaction. Anyone may."""
        return self._loop.run(self._inner.requests.refund(request))

    def wait(self, request: int, *, timeout: float = 60.0, model: str | None = None) -> OnChainAnswer:
        """Return the answer once a transaction carries it.

        Raise `RequestEndedError` when the request was cancelled or refunded, `ClientError` after `timeout` seconds.
        """
        return self._loop.run(self._inner.requests.wait(request, timeout=timeout, model=model))


async def _value(read: Callable[[], T]) -> T:
    return read()
