"""The on-chain path: a public question to a named node, its fee in escrow, the answer in a transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from plait.chain.writer import Order
from plait.client.answers import OnChainAnswer
from plait.client.call import Call, ChatMessage, check_call
from plait.client.catalogue import Served
from plait.client.errors import ClientError, InvalidArgumentError
from plait.protocol.commitments import ids_from
from plait.protocol.errors import UnknownModelError
from plait.protocol.ids import to_hex
from plait.protocol.sealing import ContentKey

if TYPE_CHECKING:
    from plait.client.core import AsyncPlait

_LOOK_EVERY_S = 0.5


class AsyncRequests:
    """The namespace `requests`: prompt and answer are public, on chain, for ever."""

    def __init__(self, client: AsyncPlait) -> None:
        self._client = client

    async def submit(
        self,
        *,
        model: str,
        messages: Sequence[ChatMessage],
        fee: int,
        max_tokens: int = 64,
        temperature: float = 0.0,
        deadline_s: int = 600,
    ) -> int:
        """Put `fee` base units in escrow for an answer within `deadline_s` seconds; return the request's number."""
        if fee < 0 or not 1 <= deadline_s <= 3_600:
            raise InvalidArgumentError("fee is base units, 0 or more; deadline_s lies between 1 and 3,600")
        call = check_call(
            model=model,
            messages=messages,
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=None,
            top_k=None,
            seed=None,
            stop=None,
            max_price=None,
            timeout_s=deadline_s,
        )
        served = await (await self._client.catalogue()).find(call.model)
        return await self._send(call, served, fee=fee, max_tokens=max_tokens, deadline_s=deadline_s)

    async def wait(self, request: int, *, timeout: float = 60.0, model: str | None = None) -> OnChainAnswer:
        """Return the answer once a transaction carries it; raise `ClientError` after `timeout` seconds."""
        edge = await self._client.edge()
        try:
            async with asyncio.timeout(timeout):
                while (found := await edge.fulfilment(request)) is None:  # noqa: ASYNC110 a chain tells nobody
                    await asyncio.sleep(_LOOK_EVERY_S)
        except TimeoutError as error:
            raise ClientError(
                f"request {request} has no answer after {timeout:g} s; wait on, or refund it after its deadline"
            ) from error
        ids = ids_from(found.output)
        return OnChainAnswer(
            request=request,
            content=await self._decoded(to_hex(found.model) if model is None else model, ids),
            ids=tuple(ids),
            receipt=to_hex(found.receipt),
            transaction=to_hex(found.transaction),
            gas_used=found.gas_used,
        )

    async def _send(self, call: Call, served: Served, *, fee: int, max_tokens: int, deadline_s: int) -> int:
        edge = await self._client.edge()
        prompt = served.tokenizer.render(call.messages)
        head, _ = await edge.heads()
        order = Order(
            gateway=served.gateways[0].owner,
            model=served.manifest.model_id,
            profile=served.manifest.profiles[0].profile_id,
            sampling=call.sampling(ContentKey.public()),
            max_tokens=max_tokens,
            fee=fee,
            deadline=head.timestamp + deadline_s,
        )
        sent = (await edge.submit_request(order, prompt)).event("Requested")
        if sent is None:
            raise ClientError("the transaction emitted no Requested event; is this deployment file the chain's?")
        return int(sent["id"])

    async def _decoded(self, model: str, ids: list[int]) -> str:
        try:
            served = await (await self._client.catalogue()).find(model)
        except UnknownModelError as error:
            raise ClientError(f"the answer came, but nobody serves the tokenizer of {model} any more") from error
        return served.tokenizer.decode(ids)


__all__ = ["AsyncRequests"]
