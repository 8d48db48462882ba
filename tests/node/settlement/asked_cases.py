"""`Requested` and `PromptPublished` events as a chain would give them."""

from __future__ import annotations

from eth_abi.abi import encode

from plait.chain import Log, RequestParameters, artifact, ids_bytes
from plait.protocol.commitments import prompt_commitment
from plait.protocol.ids import Address, Hash, keccak
from plait.protocol.sealing import ContentKey

ME = Address(b"\x02" * 20)
NOW = 1_800_000_000
IDS = (1, 70_000, 3)
KEY = ContentKey(b"\x07" * 32)


def parameters(*, key: ContentKey | None = None, ids: tuple[int, ...] = IDS, **changed: int) -> RequestParameters:
    """Return what a request asks for, with a prompt that is public unless a key is given."""
    values: dict[str, int] = {"exclusive_until": NOW + 300, "deadline": NOW + 600, "fee": 5_000, "callback_gas": 0}
    return RequestParameters(
        payer=Address(b"\x01" * 20),
        gateway=ME,
        model=Hash(b"\x03" * 32),
        profile=Hash(b"\x04" * 32),
        prompt=prompt_commitment(key or ContentKey.public(), ids),
        temperature=0,
        top_p=1_000_000,
        top_k=0,
        input_tokens=len(ids),
        max_tokens=8,
        **(values | changed),
    )


def requested(number: int, asked: RequestParameters, *, block: int = 1) -> Log:
    """Return the event of a request."""
    event = artifact("Requests").event("Requested")
    struct = next(field.type for field in event.fields if field.name == "params")
    name = keccak(b"digest", number.to_bytes(4, "big"), asked.prompt)
    return _log(block, (event.topic, _word(number), Hash(bytes(12) + ME), name), encode([struct], [asked.encodable()]))


def published(number: int, ids: tuple[int, ...] = IDS, *, block: int = 1) -> Log:
    """Return the event of a public prompt."""
    topic = artifact("Requests").event("PromptPublished").topic
    return _log(block, (topic, _word(number), Hash(bytes(12) + ME)), encode(["bytes"], [ids_bytes(ids)]))


def _word(number: int) -> Hash:
    return Hash(number.to_bytes(32, "big"))


def _log(block: int, topics: tuple[Hash, ...], data: bytes) -> Log:
    words = {"blockHash": "0x" + "11" * 32, "transactionHash": "0x" + "22" * 32, "address": "0x" + "33" * 20}
    return Log.model_validate(
        {
            **words,
            "blockNumber": hex(block),
            "logIndex": "0x0",
            "topics": ["0x" + topic.hex() for topic in topics],
            "data": "0x" + data.hex(),
        }
    )
