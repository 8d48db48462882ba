"""Requests in escrow on a real chain, as a stage asks for them."""

from __future__ import annotations

from chain_tests.anvil import LocalChain

from plait.chain import GATEWAY, ChainReader, ChainWriter
from plait.chain.logs import decode
from plait.chain.writer import Order
from plait.protocol.ids import HASH_ZERO, Address, Hash, keccak
from plait.protocol.messages import Request, Sampling
from plait.protocol.typed import Key, digest
from plait_node.stage.onchain import OpenRequests

MODEL, PROFILE = Hash(b"\x01" * 32), Hash(b"\x02" * 32)
SAMPLING = Sampling(temperature=0, top_p=1_000_000, top_k=0, stop=HASH_ZERO)
STAKE = 150_000_000


async def gateway(chain: LocalChain, reader: ChainReader) -> Address:
    writer = ChainWriter(reader, chain.new_key())
    await writer.mint(writer.account, STAKE)
    await writer.register_node(GATEWAY, "http://127.0.0.1:1", bytes(range(32)))
    await writer.add_service_key(Key.generate())
    await writer.stake(STAKE)
    await writer.publish_model(MODEL, 3, [PROFILE], "")
    return writer.account


async def submit(chain: LocalChain, reader: ChainReader) -> Request:
    payer = ChainWriter(reader, chain.new_key())
    await payer.mint(payer.account, 1_000)
    order = Order(
        gateway=await gateway(chain, reader),
        model=MODEL,
        profile=PROFILE,
        sampling=SAMPLING,
        max_tokens=8,
        fee=100,
        deadline=chain.anvil.timestamp() + 600,
    )
    sent = await payer.submit_request(order, [1, 2, 3])
    block = await reader.block(sent.block)
    logs = await reader.rpc.logs(
        first=block.number, last=block.number, addresses=[reader.deployment.address("Requests")]
    )
    event = decode(reader.deployment, logs[-1])
    assert event is not None
    number, values = event.values["id"], event.values["params"]
    seed = _seed(chain, number)
    request = Request(
        payer=values["payer"],
        gateway=values["gateway"],
        quote=HASH_ZERO,
        model=MODEL,
        profiles=(PROFILE,),
        prompt=Hash(values["prompt"]),
        sampling=SAMPLING,
        input_tokens=3,
        max_tokens=8,
        max_price=100,
        seed=seed,
        nonce=seed,
        deadline=order.deadline,
    )
    assert digest(chain.deployment.domain, request) == event.values["request"]
    return request


def _seed(chain: LocalChain, number: int) -> Hash:
    words = (chain.deployment.chain_id, int.from_bytes(chain.deployment.address("Requests"), "big"), number)
    return keccak(*(word.to_bytes(32, "big") for word in words))


async def test_request_in_escrow_is_known(chain: LocalChain, reader: ChainReader) -> None:
    request = await submit(chain, reader)
    chain.anvil.mine(20)
    known = OpenRequests(reader, span=8)  # three ranges of logs back
    assert await known(request, digest(chain.deployment.domain, request))


async def test_request_that_nobody_made_is_unknown(chain: LocalChain, reader: ChainReader) -> None:
    request = await submit(chain, reader)
    assert not await OpenRequests(reader)(request, Hash(b"\x09" * 32))
