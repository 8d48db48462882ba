"""A whole model in an operator's own vLLM, driven by URL: token ids in, token ids out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self, cast

import httpx

from plait.protocol.ids import Hash
from plait.protocol.manifest import Manifest, Profile
from plait.protocol.messages import Sampling
from plait_model.vllm_sampler import MARK, Draw
from plait_node.engine.errors import BadRowsError, NoRoomError
from plait_node.engine.vllm.answer import Answer, events, json_object
from plait_node.engine.vllm.errors import (
    BadAnswerError,
    ProfileRefusedError,
    SamplerMissingError,
    ServedModelError,
    ServerCutError,
    ServerRefusedError,
    ServerSilentError,
    ServerUnreachableError,
)

__all__ = ["TOKENS_ONLY", "VllmEngine", "VllmServer"]

# Tokens are promised, numbers are not: rows are ids, and only a judge's own run of the model can doubt them.
TOKENS_ONLY = Profile(
    name="tokens-only",
    weights="any",
    accumulate="any",
    prefill_codec="ids",
    decode_codec="ids",
    sampler="plait/1",
)

_SMALL = 1 << 20  # bytes of an answer that is no stream
_EVENT = 64 << 10  # bytes of an event, beside the prompt's ids
_ID = 16  # bytes of one id in JSON, at most


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmServer:
    """Where an operator's vLLM listens; times in seconds."""

    url: str
    model: str  # its --served-model-name
    key: str = ""  # its --api-key
    connect_s: float = 5.0
    check_s: float = 30.0  # for each question of `check`
    first_s: float = 120.0  # until the first token: waiting for a turn, and the prompt
    next_s: float = 30.0  # from token to token


class VllmEngine:
    """One model of one vLLM server; any number of requests run together, vLLM batches them."""

    def __init__(self, server: VllmServer, manifest: Manifest, *, profile: Profile) -> None:
        """Refuse, by `ProfileRefusedError`, every profile but `tokens-only`."""
        if profile != TOKENS_ONLY:
            raise ProfileRefusedError(profile.name)
        self._server = server
        self._manifest = manifest
        self._max_steps = manifest.context
        self._draws = False
        self._client = httpx.AsyncClient(
            base_url=server.url,
            # Nothing compressed: what is read is then as much as was sent.
            headers={"accept-encoding": "identity"} | ({"authorization": f"Bearer {server.key}"} if server.key else {}),
            timeout=httpx.Timeout(server.connect_s, read=None),  # what is read has deadlines of its own
            limits=httpx.Limits(max_connections=None),
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        """Return itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections; vLLM then aborts what still runs."""
        await self._client.aclose()

    @property
    def manifest(self) -> Manifest:
        """Return the model's manifest."""
        return self._manifest

    @property
    def max_steps(self) -> int:
        """Return the most steps, prompt and answer, that one request may have."""
        return self._max_steps

    @property
    def draws(self) -> bool:
        """Say whether tokens can be drawn by plait's sampler, or temperature 0 alone be served."""
        return self._draws

    async def check(self) -> None:
        """See that the server fits the manifest, and learn `max_steps` and `draws`; safe to repeat.

        Raises:
            ServedModelError: another model, or a vocabulary too small.
            ServerError: the server does not answer as vLLM does.
        """
        status, value = await self._ask("GET", "/v1/models")
        if status != 200:
            raise ServerRefusedError(status, _words(value))
        longest = _served(value, self._server.model)
        status, value = await self._ask("POST", "/v1/completions", self._probe())
        if status not in {200, 400}:
            raise ServerRefusedError(status, _words(value))
        if status == 400:
            raise ServedModelError(
                f"vLLM refused the vocabulary's last id, {self._manifest.vocabulary - 1} ({_words(value)}); "
                f"serve {self._manifest.name} there"
            )
        status, value = await self._ask("POST", "/v1/completions", self._probe() | {"vllm_xargs": {"plait_probe": 1}})
        self._draws = status == 400 and MARK in _words(value)
        self._max_steps = min(longest, self._manifest.context)

    async def generate(
        self,
        prompt: Sequence[int],
        *,
        max_tokens: int,
        sampling: Sampling,
        seed: Hash,
        request: Hash,
        start: int = 0,
        end_tokens: Sequence[int],
        priority: int = 0,
    ) -> AsyncGenerator[list[int]]:
        """Yield new ids as they come, an end token included; closing the generator makes vLLM abort the request.

        `prompt` holds the input's ids and behind them the first `start` of the answer; `priority` is less for sooner
        and needs the server's --scheduling-policy=priority. Call `check` before.

        Raises:
            BadRowsError: an id of the prompt is outside the vocabulary, or there is none.
            NoRoomError: prompt and answer are longer than the server takes.
            SamplerMissingError: tokens are to be drawn, and the server cannot.
            NumericsError: the model gave NaN or infinity.
            ServerError: the server failed; its subclasses say how.
        """
        self._check_room(prompt, max_tokens)
        if sampling.temperature and not self._draws:
            raise SamplerMissingError
        body = _body(self._server.model, prompt, max_tokens, end_tokens)
        if sampling.temperature:
            body["vllm_xargs"] = Draw(seed=seed, request=request, start=start, sampling=sampling).arguments()
        if priority:
            body["priority"] = priority
        answer = Answer(
            prompt=prompt,
            max_tokens=max_tokens,
            vocabulary=self._manifest.vocabulary,
            end_tokens=frozenset(end_tokens),
        )
        async with self._stream(body) as (response, first_due):
            due, allowed = first_due, self._server.first_s
            async with aclosing(events(response.aiter_raw(), limit=_EVENT + _ID * len(prompt))) as incoming:
                while not answer.finished:
                    ids = answer.take(await _next(incoming, answer, due, allowed))
                    if ids:
                        yield ids
                        allowed = self._server.next_s
                        due = asyncio.get_running_loop().time() + allowed

    def _check_room(self, prompt: Sequence[int], max_tokens: int) -> None:
        if not prompt or not all(0 <= one < self._manifest.vocabulary for one in prompt):
            raise BadRowsError(f"a prompt has at least one id, and all are below {self._manifest.vocabulary}")
        if max_tokens < 1 or len(prompt) + max_tokens > self._max_steps:
            raise NoRoomError(asked=len(prompt) + max_tokens, limit=self._max_steps)

    def _probe(self) -> dict[str, Any]:
        return {"model": self._server.model, "prompt": [self._manifest.vocabulary - 1], "max_tokens": 1}

    @asynccontextmanager
    async def _stream(self, body: Mapping[str, Any]) -> AsyncGenerator[tuple[httpx.Response, float]]:
        """Open the answer's stream; with it comes the moment by which the first token is due."""
        deadline = asyncio.get_running_loop().time() + self._server.first_s
        request = self._client.build_request("POST", "/v1/completions", json=body)
        response = await self._send(request, deadline, self._server.first_s)
        try:
            if response.status_code != 200:
                raise ServerRefusedError(response.status_code, _words(await self._small(response, deadline)))
            kind = response.headers.get("content-type", "nothing")
            if not kind.startswith("text/event-stream") or response.headers.get("content-encoding"):
                raise BadAnswerError(f"{kind[:40]!r} instead of an uncompressed event stream")
            yield response, deadline
        finally:
            await response.aclose()

    async def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, bytes]:
        deadline = asyncio.get_running_loop().time() + self._server.check_s
        response = await self._send(self._client.build_request(method, path, json=body), deadline, self._server.check_s)
        try:
            return response.status_code, await self._small(response, deadline)
        finally:
            await response.aclose()

    async def _send(self, request: httpx.Request, deadline: float, allowed: float) -> httpx.Response:
        try:
            async with asyncio.timeout_at(deadline):
                return await self._client.send(request, stream=True)
        except TimeoutError as error:
            raise ServerSilentError(allowed) from error
        except httpx.HTTPError as error:
            raise ServerUnreachableError(self._server.url, type(error).__name__) from error

    async def _small(self, response: httpx.Response, deadline: float) -> bytes:
        """Return a short answer's body."""
        found = bytearray()
        try:
            async with asyncio.timeout_at(deadline):
                async for chunk in response.aiter_raw():
                    found += chunk
                    if len(found) > _SMALL:
                        raise BadAnswerError(f"more than {_SMALL} bytes")
        except TimeoutError as error:
            raise ServerSilentError(self._server.check_s) from error
        except httpx.HTTPError as error:
            raise ServerCutError(0, type(error).__name__) from error
        return bytes(found)


async def _next(incoming: AsyncIterator[bytes], answer: Answer, deadline: float, allowed: float) -> bytes:
    """Return the next event; an unfinished answer has one."""
    try:
        async with asyncio.timeout_at(deadline):
            event = await anext(incoming, b"[DONE]")
    except TimeoutError as error:
        raise ServerSilentError(allowed) from error
    except httpx.HTTPError as error:
        raise ServerCutError(answer.tokens, type(error).__name__) from error
    if event == b"[DONE]":
        raise ServerCutError(answer.tokens, "its stream is over")
    return event


def _body(model: str, prompt: Sequence[int], max_tokens: int, end_tokens: Sequence[int]) -> dict[str, Any]:
    """Return the request; whatever a server may have defaults for, and that changes tokens, is said."""
    return {
        "model": model,
        "prompt": list(prompt),
        "max_tokens": max_tokens,
        "stream": True,
        "return_token_ids": True,
        "logprobs": 0,  # of the token alone: a row of NaN has none
        "temperature": 0,  # plait's sampler leaves one token to choose
        "top_p": 1,
        "top_k": 0,
        "min_p": 0,
        "repetition_penalty": 1,
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "stop_token_ids": list(end_tokens),
        "ignore_eos": True,  # the manifest says what ends an answer
    }


def _served(data: bytes, model: str) -> int:
    """Return the longest request that the server takes for the model."""
    listed: object = json_object(data).get("data")
    found = cast("list[object]", listed) if isinstance(listed, list) else []
    models = [cast("dict[str, object]", one) for one in found if isinstance(one, dict)]
    names = [str(one.get("id"))[:80] for one in models]
    if model not in names:
        raise ServedModelError(
            f"vLLM serves {', '.join(names) or 'nothing'}, not {model!r}; correct --served-model-name"
        )
    longest = models[names.index(model)].get("max_model_len")
    if type(longest) is not int or longest < 2:
        raise BadAnswerError("its model has no max_model_len")
    return longest


def _words(data: bytes) -> str:
    """Return what a server said, short and printable."""
    return "".join(one if one.isprintable() else " " for one in data[:300].decode(errors="replace"))
