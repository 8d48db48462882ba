"""The on-chain path: a question to a named node, its fee in escrow, the answer in a transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from plait.chain.orders import Order
from plait.chain.writer import TxResult
from plait.client.answers import OnChainAnswer
from plait.client.call import Call, ChatMessage, check_call
from plait.client.catalogue import Served
from plait.client.delivery import Delivery, PreparedPrompt, first_quoting
from plait.client.edge import Asked, ChainEdge, Ending, asked_from
from plait.client.errors import ClientError, InvalidArgumentError, RequestEndedError, UnknownRequestError
from plait.client.market import allowed_profiles
from plait.protocol.commitments import ids_from, prompt_commitment
from plait.protocol.errors import UnknownModelError
from plait.protocol.ids import Address, Hash, to_hex
from plait.protocol.sealing import ContentKey

if TYPE_CHECKING:
    from plait.client.core import AsyncPlait

_LOOK_EVERY_S = 0.5
_SHORTEST_S, _LONGEST_S = 60, 3_600  # what the contract takes, counted from the block that holds the request
_UNTIL_MINED_S = 30  # for an approval and the request itself, a block each


class AsyncRequests:
    """The namespace `requests`: the answer is public, on chain, for ever; the prompt too, unless you say otherwise."""

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
        exclusive_s: int | None = None,
        publish_prompt: bool = True,
    ) -> int:
        """Put `fee` base units in escrow for an answer within `deadline_s` seconds; return the request's number.

        For `exclusive_s` seconds, up to the deadline by default, only the node can end the request; nodes answer only
        while that lasts, so a shorter time makes an answer less likely and `cancel` possible earlier. The shortest is
        what the contract takes, a minute, and the half minute that the transaction may wait for its block.

        With `publish_prompt=False` the chain gets a commitment only, and the prompt goes sealed to the node's workers
        before this returns. Raise `PromptNotDeliveredError`, which names the request, when it does not get there.
        """
        exclusive_s = _check_terms(fee=fee, deadline_s=deadline_s, exclusive_s=exclusive_s)
        call = _call(model=model, messages=messages, max_tokens=max_tokens, temperature=temperature)
        served = await (await self._client.catalogue()).find(call.model)
        terms = _Terms(
            fee=fee,
            max_tokens=max_tokens,
            deadline_s=deadline_s,
            exclusive_s=exclusive_s,
            profile=self._profile(served),
        )
        if publish_prompt:
            return await self._publish(call, served, terms)
        return await self._commit(call, served, terms)

    async def prepare(self, *, model: str, messages: Sequence[ChatMessage]) -> PreparedPrompt:
        """Render a prompt for a contract that asks, under a fresh content key; nothing is sent."""
        call = _call(model=model, messages=messages)
        served = await (await self._client.catalogue()).find(call.model)
        return _prepared(call, served, served.gateways[0].owner, self._profile(served))

    async def deliver_prompt(
        self,
        request: int,
        *,
        content_key: ContentKey | bytes,
        messages: Sequence[ChatMessage] | None = None,
        ids: Sequence[int] | None = None,
    ) -> None:
        """Bring the prompt of a request that was made by commitment to its node, as messages or as token ids.

        Doing so again is harmless. It is tried until the node would not begin any more; raise
        `InvalidArgumentError` when the prompt does not fit, `UnknownRequestError`, `RequestEndedError`, or
        `PromptNotDeliveredError`.
        """
        edge, catalogue = await self._client.edge(), await self._client.catalogue()
        key = content_key if isinstance(content_key, ContentKey) else ContentKey(content_key)
        asked = await _asked(edge, request)
        if (messages is None) == (ids is None):
            raise InvalidArgumentError("give the prompt once: as messages, or as ids")
        if ids is None:
            model = to_hex(asked.parameters.model)
            call = _call(model=model, messages=messages or ())
            ids = (await catalogue.find(model)).tokenizer.render(call.messages)
        if prompt_commitment(key, ids) != asked.parameters.prompt:
            raise InvalidArgumentError(f"this prompt under this key is not what request {request} commits to")
        gateway = await catalogue.gateway(asked.parameters.gateway)
        delivery = Delivery(number=request, asked=asked, ids=ids, content_key=key)
        await delivery.bring(edge, gateway, clock=self._client.now)

    async def cancel(self, request: int) -> str:
        """End one of this wallet's requests after its exclusive period; return the transaction that brings the fee.

        Raise `UnknownRequestError`, or a `ContractError` when the contract says no: too early, ended, another's.
        """
        edge = await self._client.edge()
        return to_hex((await edge.cancel(request, (await _asked(edge, request)).parameters)).hash)

    async def refund(self, request: int) -> str:
        """Send a request's fee back to its payer after its deadline; return the transaction. Anyone may.

        Raise `UnknownRequestError`, or a `ContractError` when the contract says no: too early, or ended.
        """
        edge = await self._client.edge()
        return to_hex((await edge.refund(request, (await _asked(edge, request)).parameters)).hash)

    async def wait(self, request: int, *, timeout: float = 60.0, model: str | None = None) -> OnChainAnswer:
        """Return the answer once a transaction carries it.

        Raise `RequestEndedError` when the request was cancelled or refunded, `ClientError` after `timeout` seconds.
        """
        edge = await self._client.edge()
        try:
            async with asyncio.timeout(timeout):
                while (found := await edge.ended(request)) is None:  # noqa: ASYNC110 a chain tells nobody
                    await asyncio.sleep(_LOOK_EVERY_S)
        except TimeoutError as error:
            raise ClientError(
                f"request {request} has no answer after {timeout:g} s; wait on, or refund it after its deadline"
            ) from error
        if isinstance(found, Ending):
            raise RequestEndedError(request, found.how, fee=found.fee, transaction=to_hex(found.transaction))
        ids = ids_from(found.output)
        return OnChainAnswer(
            request=request,
            content=await self._decoded(to_hex(found.model) if model is None else model, ids),
            ids=tuple(ids),
            receipt=to_hex(found.receipt),
            transaction=to_hex(found.transaction),
            gas_used=found.gas_used,
        )

    def _profile(self, served: Served) -> Hash:
        return allowed_profiles(served.manifest, self._client.settings.profiles)[0].profile_id

    async def _publish(self, call: Call, served: Served, terms: _Terms) -> int:
        edge = await self._client.edge()
        order = await _order(edge, call, served, terms, served.gateways[0].owner)
        number, _ = _made(await edge.submit_request(order, served.tokenizer.render(call.messages)))
        return number

    async def _commit(self, call: Call, served: Served, terms: _Terms) -> int:
        edge, now = await self._client.edge(), self._client.now
        # Before any money moves: is there a worker at all to seal for?
        gateway = await first_quoting(edge, served.gateways, served.manifest.model_id, now=now())
        prompt = _prepared(call, served, gateway.owner, terms.profile)
        order = await _order(edge, call, served, terms, gateway.owner)
        number, asked = _made(await edge.submit_commitment(order, prompt.commitment, prompt.input_tokens))
        delivery = Delivery(number=number, asked=asked, ids=prompt.ids, content_key=prompt.content_key)
        await delivery.bring(edge, gateway, clock=now)
        return number

    async def _decoded(self, model: str, ids: list[int]) -> str:
        try:
            served = await (await self._client.catalogue()).find(model)
        except UnknownModelError as error:
            raise ClientError(f"the answer came, but nobody serves the tokenizer of {model} any more") from error
        return served.tokenizer.decode(ids)


def _check_terms(*, fee: int, deadline_s: int, exclusive_s: int | None) -> int:
    """Return the exclusive period in seconds."""
    exclusive_s = deadline_s if exclusive_s is None else exclusive_s
    if fee < 1 or not _SHORTEST_S <= exclusive_s <= deadline_s <= _LONGEST_S:
        raise InvalidArgumentError(
            f"fee is base units, 1 or more; deadline_s lies between {_SHORTEST_S} and {_LONGEST_S:,}, "
            f"exclusive_s between {_SHORTEST_S} and deadline_s"
        )
    return exclusive_s


@dataclass(frozen=True, slots=True, kw_only=True)
class _Terms:
    fee: int
    max_tokens: int
    deadline_s: int
    exclusive_s: int
    profile: Hash


def _call(
    *, model: str, messages: Sequence[ChatMessage], max_tokens: int | None = None, temperature: float | None = None
) -> Call:
    return check_call(
        model=model,
        messages=messages,
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=None,
        top_k=None,
        seed=None,
        stop=None,
        max_price=None,
        timeout_s=_SHORTEST_S,
    )


def _prepared(call: Call, served: Served, gateway: Address, profile: Hash) -> PreparedPrompt:
    return PreparedPrompt(
        gateway=gateway,
        model=served.manifest.model_id,
        profile=profile,
        ids=tuple(served.tokenizer.render(call.messages)),
        content_key=ContentKey.generate(),
    )


async def _order(edge: ChainEdge, call: Call, served: Served, terms: _Terms, gateway: Address) -> Order:
    head, _ = await edge.heads()
    exclusive_until = head.timestamp + max(terms.exclusive_s, _SHORTEST_S + _UNTIL_MINED_S)
    return Order(
        gateway=gateway,
        model=served.manifest.model_id,
        profile=terms.profile,
        temperature=call.temperature,
        top_p=call.top_p,
        top_k=call.top_k,
        max_tokens=terms.max_tokens,
        fee=terms.fee,
        exclusive_until=exclusive_until,
        deadline=max(head.timestamp + terms.deadline_s, exclusive_until),
    )


def _made(sent: TxResult) -> tuple[int, Asked]:
    event = sent.event("Requested")
    if event is None:
        raise ClientError("the transaction emitted no Requested event; is this deployment file the chain's?")
    return int(event["id"]), asked_from(event)


async def _asked(edge: ChainEdge, request: int) -> Asked:
    if (found := await edge.asked(request)) is None:
        raise UnknownRequestError(f"nobody made an on-chain request {request}; `requests.submit` returns its number")
    return found


__all__ = ["AsyncRequests"]
