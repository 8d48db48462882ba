"""What a payer can get wrong, or be lied to about: one clear error that says what to do, and nothing lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from chain_tests.anvil import Anvil
from chain_tests.live.network import MODEL, LiveNetwork, talk
from chain_tests.live.tampering import Watched

from plait import AsyncPlait
from plait.chain import Deployment
from plait.errors import (
    ChannelExitingError,
    DeploymentError,
    DepositTooSmallError,
    PlaitError,
    PriceTooLowError,
    PromptTooLongError,
    RpcDownError,
    UnknownModelError,
    VerificationError,
    WrongChainError,
)
from plait.protocol.pb import gateway_pb2
from plait_node.ports import free_port

pytestmark = pytest.mark.timeout(900)

MAX_INPUT = 2_048  # the worker's setting in the local network


async def ask(client: AsyncPlait, question: str = "Hi.", **arguments: object) -> object:
    arguments = {"model": MODEL, "messages": talk(question), "max_tokens": 8, "temperature": 0} | arguments
    return await client.chat.completions.create(**arguments)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"model": "gpt-7"}, UnknownModelError, ["'gpt-7'", "served now", MODEL, "0x"]),
        ({"model": "0x" + "ab" * 32}, UnknownModelError, ["served now", MODEL]),
        ({"messages": talk("word " * 2_100)}, PromptTooLongError, [str(MAX_INPUT), "shorten it"]),
        ({"max_tokens": 5_000}, PromptTooLongError, ["max_tokens is 5000", "lower it"]),
        ({"max_price": 3}, PriceTooLowError, ["max_price is 3", "raise max_price or lower max_tokens"]),
    ],
    ids=["model name", "model id", "prompt", "max_tokens", "max_price"],
)
async def test_call_that_cannot_be_served_says_what_to_do_and_costs_nothing(
    net: LiveNetwork, tmp_path: Path, arguments: dict[str, object], error: type[PlaitError], says: list[str]
) -> None:
    key = await net.wallet()
    async with net.payer(tmp_path, key=key) as client:
        with pytest.raises(error) as caught:
            await ask(client, **arguments)
        assert all(each in caught.value.text for each in says), caught.value.text
        assert not caught.value.moved
        assert await client.jobs.list() == []
    async with net.reader() as reader:
        assert await reader.token_balance(key.address) == 10_000_000


@pytest.mark.parametrize(
    ("tokens", "deposit", "says"),
    [(10_000_000, 10, "pass deposit="), (7, 1_000_000, "holds 7; fund it")],
    ids=["deposit", "wallet"],
)
async def test_deposit_too_small_says_how_much_is_missing(
    net: LiveNetwork, tmp_path: Path, tokens: int, deposit: int, says: str
) -> None:
    key = await net.wallet(tokens=tokens)
    async with net.payer(tmp_path, key=key, deposit=deposit) as client:
        with pytest.raises(DepositTooSmallError, match=says):
            await ask(client)
    async with net.reader() as reader:
        assert await reader.token_balance(key.address) == tokens


async def test_channel_that_its_payer_leaves_takes_no_request(net: LiveNetwork, tmp_path: Path) -> None:
    key = await net.wallet()
    async with net.payer(tmp_path, key=key) as client:
        await ask(client)
        session = (await client.purse()).session.address
        async with net.writer(key) as writer:
            await writer.exit(net.owner("gateway"), session)
        with pytest.raises(ChannelExitingError, match="withdraw first, or name another gateway"):
            await ask(client)
        assert [job.status for job in await client.jobs.list()] != []


async def test_endpoint_of_another_chain_is_named(net: LiveNetwork, tmp_path: Path) -> None:
    with Anvil(chain_id=4_242) as other:
        async with net.payer(tmp_path, rpc=other.url) as client:
            with pytest.raises(WrongChainError, match="serves chain 4242, the deployment is on chain 31337"):
                await client.models.list()


async def test_deployment_file_of_another_chain_is_named(net: LiveNetwork, tmp_path: Path) -> None:
    with Anvil() as other:  # the same id, and nothing on it: a local chain that was started again
        async with net.payer(tmp_path, rpc=other.url) as client:
            with pytest.raises(DeploymentError, match="the local chain was restarted: deploy again"):
                await client.models.list()
    elsewhere = net.deployment.model_copy(update={"chain_id": 1})
    elsewhere.save(tmp_path / "1.json")
    async with net.payer(tmp_path, deployment=Deployment.load(tmp_path / "1.json")) as client:
        with pytest.raises(WrongChainError, match="use an endpoint of chain 1 or the deployment file of chain 31337"):
            await client.models.list()


async def test_endpoint_that_is_down_is_named(net: LiveNetwork, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    async with net.payer(tmp_path, rpc=url) as client:
        with pytest.raises(RpcDownError, match="check that the node runs and that the URL is right"):
            await ask(client)


def flip(name: str, bit: int) -> Callable[[gateway_pb2.ResultEvent], None]:
    """Return what changes one bit in a field of a signed receipt on its way."""

    def change(event: gateway_pb2.ResultEvent) -> None:
        if event.WhichOneof("body") != "receipt":
            return
        holder = event.receipt if name == "signature" else event.receipt.message
        value = getattr(holder, name)
        if isinstance(value, bytes):
            number = int.from_bytes(value, "big") ^ (1 << bit)
            setattr(holder, name, number.to_bytes(max(len(value), bit // 8 + 1), "big"))
        else:
            setattr(holder, name, value ^ (1 << bit))

    return change


@pytest.mark.parametrize(("name", "bit"), [("signature", 300), ("price", 3), ("tokens", 77)])
async def test_receipt_with_one_bit_changed_is_refused_and_nothing_more_is_signed(
    net: LiveNetwork, tmp_path: Path, name: str, bit: int
) -> None:
    transport = Watched(flip(name, bit))
    async with net.payer(tmp_path, transport=transport) as client:
        stream = await client.chat.completions.create(
            model=MODEL, messages=talk("Hi."), max_tokens=8, temperature=0, stream=True
        )
        paid = stream.paid
        with pytest.raises(VerificationError) as caught:
            async for _ in stream:
                pass
        assert caught.value.check == "receipt", caught.value.text
        assert transport.changed_at is not None
        assert "/v1/vouchers" not in transport.calls_since_change()
        assert stream.paid == paid == stream.price_of(0)
        job = await client.jobs.get(stream.id)
        assert (job.status, job.ended, job.paid) == ("open", None, paid)
