from __future__ import annotations

import os
import socket

import httpx
import pytest
from tests.sdk.client.fakes import World
from tests.sdk.client.test_ask import CHAT, price

from plait import AsyncPlait, errors
from plait.errors import (
    ChannelExitingError,
    DeploymentFileError,
    DepositTooSmallError,
    GatewayAnswerError,
    GatewayDownError,
    InvalidArgumentError,
    NoGatewayError,
    PriceTooLowError,
    PromptTooLongError,
    RpcDownError,
    SettingsError,
    UnknownModelError,
    VerificationError,
)


async def test_create_ack_by_stranger_refuses(world: World) -> None:
    world.gateway.ack_key = world.swarm.stages[0].service
    async with world.client() as client:
        with pytest.raises(VerificationError, match="ack"):
            await client.chat.completions.create(model="tiny", messages=CHAT)


async def test_create_unknown_model_lists_those_served(world: World) -> None:
    async with world.client() as client:
        with pytest.raises(UnknownModelError, match=r"served now: tiny \(0x"):
            await client.chat.completions.create(model="gpt-9", messages=CHAT)
        with pytest.raises(UnknownModelError, match="served now"):
            await client.chat.completions.create(model="0x" + "ab" * 32, messages=CHAT)


async def test_create_prompt_too_long_says_the_limit(world: World) -> None:
    async with world.client() as client:
        long = [{"role": "user", "content": "x" * 1_024}]
        with pytest.raises(PromptTooLongError, match="room for 1024"):
            await client.chat.completions.create(model="tiny", messages=long)
        with pytest.raises(PromptTooLongError, match="at most 512"):
            await client.chat.completions.create(model="tiny", messages=CHAT, max_tokens=513)
    assert world.edge.transactions == []


async def test_create_max_price_below_quote_says_the_price(world: World) -> None:
    async with world.client(max_price=10) as client:
        with pytest.raises(PriceTooLowError, match=f"can cost {price(100)} base units"):
            await client.chat.completions.create(model="tiny", messages=CHAT, max_tokens=100)
    assert world.edge.transactions == []


@pytest.mark.parametrize(("deposit", "wallet", "advice"), [(100, 10**6, "pass deposit="), (10**6, 100, "fund it")])
async def test_create_deposit_too_small_says_what_to_do(world: World, deposit: int, wallet: int, advice: str) -> None:
    world.edge.wallet = wallet
    async with world.client(deposit=deposit) as client:
        with pytest.raises(DepositTooSmallError, match=advice):
            await client.chat.completions.create(model="tiny", messages=CHAT, max_tokens=100)
    assert world.edge.transactions == []


async def test_create_deposit_used_up_tops_up(world: World) -> None:
    async with world.client(deposit=price(200)) as client:
        for _ in range(3):
            await client.chat.completions.create(model="tiny", messages=CHAT, max_tokens=200)
    assert world.edge.transactions[0] == "open"
    assert "top up" in world.edge.transactions


async def test_create_channel_exiting_refuses(world: World) -> None:
    async with world.client() as client:
        await client.chat.completions.create(model="tiny", messages=CHAT, max_tokens=200)
        for name, slot in world.edge.slots.items():
            world.edge.slots[name] = type(slot)(deposit=slot.deposit, claimed=0, exit_at=5, jobs=0)
        with pytest.raises(ChannelExitingError, match="name another gateway"):
            await client.chat.completions.create(model="tiny", messages=CHAT)


@pytest.mark.parametrize(
    "change", [{"gateway": b"\1" * 20}, {"model": b"\1" * 32}, {"expires": 1}, {"workers": ()}, {"terms": ()}]
)
async def test_create_bad_quote_signs_nothing(world: World, change: dict[str, object]) -> None:
    world.gateway.change_quote = change
    async with world.client() as client:
        with pytest.raises(NoGatewayError, match="quote"):
            await client.chat.completions.create(model="tiny", messages=CHAT)
    assert world.edge.transactions == []
    assert world.gateway.payments == []


@pytest.mark.parametrize("part", ["/v1/manifests", "/v1/files"])
async def test_create_file_with_another_hash_refuses(world: World, part: str) -> None:
    world.gateway.change_data = lambda path, data: data + b" " if path.startswith(part) else data
    async with world.client() as client:
        with pytest.raises(NoGatewayError, match="another hash"):
            await client.chat.completions.create(model="tiny", messages=CHAT)


@pytest.mark.parametrize("part", ["/v1/models", "/v1/quotes", "/v1/jobs", "/v1/vouchers"])
async def test_create_garbled_replies_blame_the_gateway(world: World, part: str) -> None:
    world.gateway.change_data = lambda path, data: b"\xff" * 9 if path == part else data
    async with world.client() as client:
        with pytest.raises((GatewayAnswerError, NoGatewayError), match="malformed"):
            await client.chat.completions.create(model="tiny", messages=CHAT, max_tokens=200)


async def test_create_gateway_down_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plait.client.run._BACKOFF", (0.0, 0.0))
    world.gateway.refuse["events"] = [httpx.ConnectError] * 3
    async with world.client() as client:
        with pytest.raises(GatewayDownError, match="try again"):
            await client.chat.completions.create(model="tiny", messages=CHAT)
    world.gateway.refuse["/v1/models"] = [httpx.ConnectError]
    async with world.client() as client:
        with pytest.raises(NoGatewayError, match="does not answer"):
            await client.chat.completions.create(model="tiny", messages=CHAT)


async def test_create_no_http_endpoint_on_chain_says_so(world: World) -> None:
    world.edge.endpoint = "dht://host:1"
    async with world.client() as client:
        with pytest.raises(NoGatewayError, match="no staked gateway"):
            await client.models.list()


@pytest.mark.parametrize(
    "wrong",
    [
        {"messages": []},
        {"messages": [{"role": "user"}]},
        {"max_tokens": 0},
        {"temperature": -1},
        {"top_p": 0},
        {"top_p": 1.5},
        {"top_k": -1},
        {"seed": -1},
        {"stop": [""]},
        {"stop": ["x"] * 17},
        {"max_price": -1},
    ],
)
async def test_create_argument_out_of_range_says_which(world: World, wrong: dict[str, object]) -> None:
    async with world.client() as client:
        with pytest.raises(InvalidArgumentError, match=next(iter(wrong)).rstrip("s")):
            await client.chat.completions.create(**{"model": "tiny", "messages": CHAT, **wrong})
    assert world.gateway.calls == []


async def test_create_sampling_travels_in_millionths(world: World) -> None:
    async with world.client() as client:
        await client.chat.completions.create(
            model="tiny", messages=CHAT, max_tokens=200, temperature=0.7, top_p=0.95, top_k=40, seed=5
        )
    (held,) = world.gateway.jobs.values()
    sampling = held.request.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (700_000, 950_000, 40)
    assert held.request.seed == (5).to_bytes(32, "big")


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        ({"rpc": None}, "PLAIT_RPC"),
        ({"rpc": "localhost:8545"}, "PLAIT_RPC"),
        ({"deployment": None}, "PLAIT_DEPLOYMENT"),
        ({"key": "0x12"}, "64 hex digits"),
        ({"gateway": "0x12"}, "owner address"),
        ({"timeout": 4_000}, "3500"),
        ({"deposit": -1}, "base units"),
    ],
)
def test_settings_missing_or_malformed_say_what_to_set(
    world: World, monkeypatch: pytest.MonkeyPatch, change: dict[str, object], advice: str
) -> None:
    for name in [name for name in os.environ if name.startswith("PLAIT_")]:
        monkeypatch.delenv(name)
    with pytest.raises(SettingsError, match=advice):
        AsyncPlait(**world.arguments(**change))


async def test_settings_no_key_reads_but_does_not_ask(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PLAIT_KEY", raising=False)
    async with world.client(key=None) as client:
        assert [model.name for model in await client.models.list()] == ["tiny"]
        with pytest.raises(SettingsError, match="PLAIT_KEY"):
            await client.chat.completions.create(model="tiny", messages=CHAT)


def test_settings_come_from_the_environment_unless_given(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAIT_RPC", "http://env.test")
    monkeypatch.setenv("PLAIT_DEPLOYMENT", str(world.deployment))
    monkeypatch.setenv("PLAIT_KEY", world.key.secret_hex())
    monkeypatch.setenv("PLAIT_HOME", str(world.home))
    settings = AsyncPlait(rpc="http://given.test").settings
    assert settings.rpc == "http://given.test"
    assert settings.payer().address == world.key.address
    assert settings.home == world.home


async def test_connect_rpc_down_says_so(world: World) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    arguments = world.arguments(rpc=f"http://127.0.0.1:{port}")
    del arguments["connect"]
    async with AsyncPlait(**arguments) as client:
        with pytest.raises(RpcDownError, match=r"127\.0\.0\.1"):
            await client.models.list()


def test_deployment_file_missing_or_broken_says_which(world: World) -> None:
    world.deployment.write_text("{}")
    with pytest.raises(DeploymentFileError, match=r"deployment\.json"):
        AsyncPlait(**world.arguments())
    with pytest.raises(DeploymentFileError, match=r"nowhere\.json"):
        AsyncPlait(**world.arguments(deployment=world.home / "nowhere.json"))


def test_errors_lists_every_public_one() -> None:
    assert all(issubclass(getattr(errors, name), errors.PlaitError) for name in errors.__all__)
