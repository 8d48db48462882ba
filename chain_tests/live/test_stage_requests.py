"""Requests in escrow on a real chain, as stages and gateways ask for them."""

from __future__ import annotations

from dataclasses import dataclass

from chain_tests.anvil import LocalChain

from plait.chain import GATEWAY, ChainReader, ChainWriter, Order, RequestParameters
from plait.protocol.ids import HASH_ZERO, Address, Hash, keccak
from plait.protocol.messages import Request, Sampling
from plait.protocol.typed import Key, digest
from plait_node.chain_requests import OpenRequests

MODEL, PROFILE = Hash(b"\x01" * 32), Hash(b"\x02" * 32)
SAMPLING = Sampling(temperature=0, top_p=1_000_000, top_k=0, stop=HASH_ZERO)
STAKE = 150_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A request in escrow, and who can end it."""

    request: Request
    number: int
    parameters: RequestParameters
    payer: ChainWriter


async def gateway(chain: LocalChain, reader: ChainReader) -> Address:
    writer = ChainWriter(reader, chain.new_key())
    await writer.mint(writer.account, STAKE)
    await writer.register_node(GATEWAY, "http://127.0.0.1:1", bytes(range(32)))
    await writer.add_service_key(Key.generate())
    await writer.stake(STAKE)
    await writer.publish_model(MODEL, 3, [PROFILE], "")
    return writer.account


async def submit(chain: LocalChain, reader: ChainReader) -> Made:
    payer = ChainWriter(reader, chain.new_key())
    await payer.mint(payer.account, 1_000)
    order = Order(
        gateway=await gateway(chain, reader),
        model=MODEL,
        profile=PROFILE,
        max_tokens=8,
        fee=100,
        exclusive_until=chain.anvil.timestamp() + 300,
        deadline=chain.anvil.timestamp() + 600,
    )
    event = (await payer.submit_request(order, [1, 2, 3])).event("Requested")
    assert event is not None
    number, values = event["id"], event["params"]
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
    assert digest(chain.deployment.domain, request) == event["request"]
    return Made(request=request, number=number, parameters=RequestParameters.from_event(values), payer=payer)


def _seed(chain: LocalChain, number: int) -> Hash:
    words = (chain.deployment.chain_id, int.from_bytes(chain.deployment.address("Requests"), "big"), number)
    return keccak(*(word.to_bytes(32, "big") for word in words))


async def test_request_in_escrow_is_known(chain: LocalChain, reader: ChainReader) -> None:
    made = await submit(chain, reader)
    chain.anvil.mine(20)
    known = OpenRequests(reader, span=8)  # three ranges of logs back
    assert await known(made.request, digest(chain.deployment.domain, made.request))


async def test_request_whose_fee_went_back_is_unknown(chain: LocalChain, reader: ChainReader) -> None:
    made = await submit(chain, reader)
    chain.anvil.increase_time(301)
    name = digest(chain.deployment.domain, made.request)
    assert await OpenRequests(reader)(made.request, name)

    await made.payer.cancel(made.number, made.parameters)

    assert not await OpenRequests(reader)(made.request, name)


async def test_request_that_nobody_made_is_unknown(chain: LocalChain, reader: ChainReader) -> None:
    made = await submit(chain, reader)
    assert not await OpenRequests(reader)(made.request, Hash(b"\x09" * 32))


async def test_request_is_known_by_number_gateway_and_digest_together_while_it_is_open(
    chain: LocalChain, reader: ChainReader
) -> None:
    made = await submit(chain, reader)
    chain.anvil.mine(20)
    known, name = OpenRequests(reader, span=8), digest(chain.deployment.domain, made.request)
    owner = made.request.gateway

    assert await known.named(made.number, owner, name)
    assert not await known.named(made.number + 1, owner, name)
    assert not await known.named(made.number, Address(b"\x01" * 20), name)
    assert not await known.named(made.number, owner, Hash(b"\x09" * 32))

    chain.anvil.increase_time(301)
    await made.payer.cancel(made.number, made.parameters)
    assert not await known.named(made.number, owner, name)
