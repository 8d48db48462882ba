"""The prompt of an on-chain request off chain: sealed for the node's workers and brought to its gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from plait.client.edge import Asked, ChainEdge, Ending
from plait.client.errors import NoGatewayError, PromptNotDeliveredError, RequestEndedError
from plait.client.gateway import GatewayClient
from plait.protocol.checks import check_quote
from plait.protocol.commitments import ids_bytes, prompt_commitment
from plait.protocol.errors import PlaitError, UnknownJobError
from plait.protocol.ids import Address, Hash, to_hex
from plait.protocol.messages import Prekey
from plait.protocol.pb import gateway_pb2
from plait.protocol.sealing import ContentKey, seal_capsule, seal_prompt
from plait.protocol.typed import Signed

# What a node leaves for its answer to be mined: it begins no work later than this before its exclusive period ends.
BEGIN_MARGIN_S = 30
_PAUSES_S = (0.3, 1.0, 2.0, 4.0, 8.0)  # the last one again and again


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedPrompt:
    """A rendered prompt, and what a contract's order for it names.

    A contract asks either with `public_ids`, or with `commitment` and `input_tokens`; then keep `ids` and `content_key`
    until `requests.deliver_prompt` has brought them to the node. Whoever has `content_key` reads the prompt.
    """

    gateway: Address
    model: Hash
    profile: Hash
    ids: tuple[int, ...] = field(repr=False)
    content_key: ContentKey = field(repr=False, compare=False)

    @property
    def commitment(self) -> Hash:
        """Return what `requestByCommitment` takes as `prompt`."""
        return prompt_commitment(self.content_key, self.ids)

    @property
    def input_tokens(self) -> int:
        """Return how many tokens the prompt has."""
        return len(self.ids)

    @property
    def public_ids(self) -> bytes:
        """Return what `request` takes as `ids`: the prompt itself, for everybody to read, for ever."""
        return ids_bytes(self.ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A prompt on its way to the node that a request names."""

    number: int
    asked: Asked
    ids: Sequence[int] = field(repr=False)
    content_key: ContentKey = field(repr=False)

    async def bring(self, edge: ChainEdge, gateway: GatewayClient, *, clock: Callable[[], float]) -> None:
        """Seal and hand over, and try again while a node would still begin; one that is answered needs nothing.

        Raise `RequestEndedError`, or `PromptNotDeliveredError`.
        """
        until = self.asked.parameters.exclusive_until - BEGIN_MARGIN_S
        why, tries = "its exclusive period is over, or nearly", 0
        while clock() < until:
            wait_s = _PAUSES_S[min(tries, len(_PAUSES_S) - 1)]
            try:
                prekeys = await quoted_prekeys(edge, gateway, self.asked.parameters.model, now=clock())
                await gateway.bring_prompt(self.number, self._sealed(prekeys))
            except UnknownJobError as error:
                # The gateway may be a block behind; whether the request is still open, the chain says.
                if await self._answered(edge):
                    return
                why = error.text
            except PlaitError as error:
                if not error.retry:
                    raise PromptNotDeliveredError(self.number, error.text) from error
                why, wait_s = error.text, max(wait_s, error.retry_after_s)
            else:
                return
            await asyncio.sleep(wait_s)
            tries += 1
        raise PromptNotDeliveredError(self.number, why)

    async def _answered(self, edge: ChainEdge) -> bool:
        ended = await edge.ended(self.number)
        if isinstance(ended, Ending):
            raise RequestEndedError(self.number, ended.how, fee=ended.fee, transaction=to_hex(ended.transaction))
        return ended is not None

    def _sealed(self, prekeys: Sequence[Signed[Prekey]]) -> gateway_pb2.PromptCall:
        request = self.asked.request
        capsules = [
            gateway_pb2.PromptCapsule(
                node=prekey.message.node,
                prekey=prekey.struct_hash(),
                sealed=seal_capsule(
                    self.content_key,
                    prekey_public=prekey.message.key,
                    kem=prekey.message.kem,
                    request=request,
                    node=prekey.message.node,
                ),
            )
            for prekey in prekeys
        ]
        prompt = seal_prompt(self.content_key, request, self.ids)
        return gateway_pb2.PromptCall(request=request, capsules=capsules, prompt=prompt)


async def quoted_prekeys(edge: ChainEdge, gateway: GatewayClient, model: Hash, *, now: float) -> list[Signed[Prekey]]:
    """Return the prekeys of the workers that a gateway quotes for a model now, checked."""
    quote, prekeys = await gateway.quote(model)
    await check_quote(edge.domain, edge.directory, quote, prekeys, gateway=gateway.owner, model=model, now=now)
    quoted = {worker.prekey for worker in quote.message.workers}
    return [prekey for prekey in prekeys if prekey.struct_hash() in quoted]


async def first_quoting(
    edge: ChainEdge, gateways: Sequence[GatewayClient], model: Hash, *, now: float
) -> GatewayClient:
    """Return a gateway that has workers to seal for; raise `NoGatewayError` with what all of them said."""
    reasons: list[str] = []
    for gateway in gateways:
        try:
            await quoted_prekeys(edge, gateway, model, now=now)
        except PlaitError as error:
            reasons.append(error.text)
        else:
            return gateway
    raise NoGatewayError("no gateway of this model takes a sealed prompt", reasons)
