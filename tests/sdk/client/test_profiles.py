"""Which profiles a request allows: those that its payer names, in that order, or all that the model has."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.sdk.client.fakes import World
from tests.sdk.client.test_ask import CHAT

from plait.errors import NoGatewayError, SettingsError
from plait.protocol.ids import Hash
from plait.protocol.manifest import FP32_STRICT, PROFILES

SLOW, BF16 = PROFILES["fp32-prefill-int8"], PROFILES["bf16"]


@pytest.fixture
def several(world: World) -> World:
    """Serve a model with three profiles, of which two are quoted; a quote has them in the order of their ids."""
    world.swarm.manifest = replace(world.swarm.manifest, profiles=(SLOW, FP32_STRICT, BF16))
    terms = [replace(world.swarm.terms, profile=each.profile_id) for each in (FP32_STRICT, SLOW)]
    world.gateway.change_quote = {"terms": tuple(sorted(terms, key=lambda each: each.profile))}
    return world


async def allowed(world: World, **settings: object) -> tuple[Hash, ...]:
    async with world.client(**settings) as client:
        await client.chat.completions.create(model="tiny", messages=CHAT)
    (held,) = world.gateway.jobs.values()
    return held.request.profiles


async def test_profiles_unnamed_are_all_that_are_quoted_in_the_manifests_order(several: World) -> None:
    assert await allowed(several) == (SLOW.profile_id, FP32_STRICT.profile_id)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["fp32-strict"], [FP32_STRICT]),
        (["fp32-strict", "fp32-prefill-int8"], [FP32_STRICT, SLOW]),
        (["int4", "bf16", "fp32-prefill-int8"], [SLOW]),
    ],
)
async def test_profiles_named_are_those_alone_and_the_best_one_first(
    several: World, names: list[str], expected: list[object]
) -> None:
    assert await allowed(several, profiles=names) == tuple(each.profile_id for each in expected)  # type: ignore[attr-defined]


async def test_profiles_may_come_from_the_environment(several: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAIT_PROFILES", "fp32-strict,bf16")
    assert await allowed(several) == (FP32_STRICT.profile_id,)


async def test_profiles_that_the_model_lacks_are_refused_by_name(several: World) -> None:
    async with several.client(profiles=["int4"]) as client:
        with pytest.raises(
            SettingsError, match="tiny has no profile int4; it has fp32-prefill-int8, fp32-strict, bf16"
        ):
            await client.chat.completions.create(model="tiny", messages=CHAT)
    assert several.edge.transactions == []


async def test_profiles_that_nobody_quotes_find_no_gateway(several: World) -> None:
    async with several.client(profiles=["bf16"]) as client:
        with pytest.raises(NoGatewayError, match="offers none of bf16"):
            await client.chat.completions.create(model="tiny", messages=CHAT, timeout=1.0)
    assert several.edge.transactions == []


async def test_profile_of_a_request_from_the_chain_is_the_best_one_named(several: World) -> None:
    for names, expected in (([], SLOW), (["bf16", "fp32-strict"], BF16)):
        async with several.client(profiles=names) as client:
            prompt = await client.requests.prepare(model="tiny", messages=CHAT)
        assert prompt.profile == expected.profile_id
