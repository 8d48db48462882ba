"""Compare the name that each on-chain request was given with the digest of what it asks for."""

from __future__ import annotations

from collections.abc import AsyncIterator

from plait.chain.reader import ChainReader
from plait.protocol.ids import HASH_ZERO, Address, Hash, keccak, to_hex
from plait.protocol.messages import Request, Sampling
from plait.protocol.typed import digest
from plait_audit.load import Replay
from plait_audit.state import Finding
from plait_audit.state import Request as Found


async def requests_are_named_by_their_digest(reader: ChainReader, replay: Replay) -> AsyncIterator[Finding]:
    """Find requests whose logged name is not the digest of the `Request` that nodes rebuild and sign receipts for."""
    deployment = reader.deployment
    for number, found in replay.state.requests.items():
        seed = _seed(deployment.chain_id, deployment.address("Requests"), number)
        name = digest(deployment.domain, _message(found, seed))
        if found.digest != name:
            text = f"request {number} is called {to_hex(found.digest)}, its digest is {to_hex(name)}"
            yield Finding(check="requests", text=text, place=found.place)


def _seed(chain_id: int, contract: Address, number: int) -> Hash:
    return keccak(chain_id.to_bytes(32, "big"), bytes(12) + contract, number.to_bytes(32, "big"))


def _message(found: Found, seed: Hash) -> Request:
    params = found.params
    return Request(
        payer=params["payer"],
        gateway=params["gateway"],
        quote=HASH_ZERO,
        model=Hash(params["model"]),
        profiles=(Hash(params["profile"]),),
        prompt=Hash(params["prompt"]),
        sampling=Sampling(
            temperature=params["temperature"], top_p=params["topP"], top_k=params["topK"], stop=HASH_ZERO
        ),
        input_tokens=params["inputTokens"],
        max_tokens=params["maxTokens"],
        max_price=params["fee"],
        seed=seed,
        nonce=seed,
        deadline=params["deadline"],
    )
