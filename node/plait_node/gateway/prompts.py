"""Take the sealed prompt of an on-chain request from whoever brings it, and leave it where this node's worker looks."""

from __future__ import annotations

import logging

from plait.protocol import codec
from plait.protocol.errors import MalformedMessageError, UnknownJobError
from plait.protocol.ids import Hash, hash32, to_hex
from plait.protocol.messages import MAX_WORKERS
from plait.protocol.pb import gateway_pb2
from plait.protocol.sealing import CAPSULE_BYTES, PROMPT_BLOCK, TAG_BYTES
from plait_node.broker import BrokerError
from plait_node.gateway.errors import BrokerAwayError
from plait_node.gateway.faces import Outside
from plait_node.gateway.metrics import GatewayMetrics

_LOG = logging.getLogger(__name__)


class PromptDesk:
    """Passes deliveries on. It cannot tell the payer's from a stranger's: the worker tries them all."""

    def __init__(self, outside: Outside, metrics: GatewayMetrics) -> None:
        self._me, self._on_chain, self._broker, self._metrics = outside.me, outside.on_chain, outside.broker, metrics

    async def take(self, number: int, body: bytes) -> None:
        """Pass on a delivery for an open request that names this gateway; the same one again changes nothing."""
        call = codec.parse(gateway_pb2.PromptCall, body)
        request = hash32(call.request)
        _check_sizes(call)
        if not await self._on_chain.named(number, self._me, request):
            raise UnknownJobError(
                f"no open on-chain request {number} with digest {to_hex(request)} names this gateway; "
                "send its prompt once its transaction is mined"
            )
        await self._pass_on(request, call)
        self._metrics.prompts.inc()
        _LOG.info("prompt passed on number=%d request=%s", number, to_hex(request))

    async def _pass_on(self, request: Hash, call: gateway_pb2.PromptCall) -> None:
        try:
            await self._broker.bring_prompt(request, call)
        except BrokerError as error:
            raise BrokerAwayError(f"the prompt could not be passed on ({error}); send the same call again") from error


def _check_sizes(call: gateway_pb2.PromptCall) -> None:
    nodes = [each.node for each in call.capsules]
    if not 1 <= len(nodes) <= MAX_WORKERS or len(set(nodes)) != len(nodes):
        raise MalformedMessageError(f"a prompt comes with 1 to {MAX_WORKERS} capsules, one for each worker")
    for each in call.capsules:
        if (len(each.node), len(each.prekey)) != (20, 32) or len(each.sealed) not in CAPSULE_BYTES.values():
            raise MalformedMessageError("a capsule names its node and prekey and holds one sealed key")
    if len(call.prompt) <= TAG_BYTES or (len(call.prompt) - TAG_BYTES) % PROMPT_BLOCK:
        raise MalformedMessageError("a sealed prompt is padded as docs/protocol.md says")
