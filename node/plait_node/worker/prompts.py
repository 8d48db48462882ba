"""Prompts of on-chain requests that reached this node off chain, opened."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from plait.protocol.errors import BadRequestError, PlaitError
from plait.protocol.ids import Hash, hash32, to_hex
from plait.protocol.sealing import ContentKey, open_prompt

if TYPE_CHECKING:
    from plait.protocol.ids import Address
    from plait.protocol.pb import gateway_pb2
    from plait_node.broker import Broker
    from plait_node.worker.prekeys import PrekeyRing

_log = logging.getLogger(__name__)


class PromptBox:
    """Opens what was brought to the broker. Anyone may bring anything: what does not open is dropped and counted."""

    def __init__(self, broker: Broker, *, prekeys: PrekeyRing, owner: Address) -> None:
        self._broker = broker
        self._prekeys = prekeys
        self._owner = owner
        self._read: dict[Hash, int] = {}
        self.dropped = 0

    async def opened(self, request: Hash) -> list[tuple[list[int], ContentKey]]:
        """Return the prompts that were brought for a request since the last call, each with its key, unchecked."""
        found: list[tuple[list[int], ContentKey]] = []
        for each in await self._broker.prompts(request, after=self._read.get(request, 0)):
            self._read[request] = each.sequence
            try:
                found.append(self._open(request, each.call))
            except PlaitError as error:
                self.drop(request, error)
        return found

    def drop(self, request: Hash, error: PlaitError) -> None:
        """Count a prompt that is of no use."""
        self.dropped += 1
        _log.debug("prompt dropped request=%s error=%s", to_hex(request), error)

    def keep(self, requests: Iterable[Hash]) -> None:
        """Forget how far any other request was read."""
        wanted = set(requests)
        self._read = {request: at for request, at in self._read.items() if request in wanted}

    def _open(self, request: Hash, call: gateway_pb2.PromptCall) -> tuple[list[int], ContentKey]:
        sealed = {hash32(each.prekey): each.sealed for each in call.capsules if each.node == self._owner}
        if not sealed:
            raise BadRequestError(f"no capsule is for worker {to_hex(self._owner)}")
        prekey, secret = self._prekeys.held(sealed)
        key = secret.open(sealed[prekey], request=request, node=self._owner)
        ids, stop = open_prompt(key, request, call.prompt)
        if stop:
            raise BadRequestError("a request from the chain has no stop strings")
        return ids, key
