"""Processes that die at the worst moment: nothing is lost, nothing beyond what was delivered is paid."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from chain_tests.live.network import MODEL, LiveNetwork, talk
from chain_tests.live.tampering import Watched

from plait import AsyncPlait
from plait.client.answers import ChatCompletion
from plait.errors import StageFailedError
from plait.protocol.ids import address
from plait_audit import audit

pytestmark = pytest.mark.timeout(300)

STORY = "Write a long story about a lighthouse keeper and the sea."
KILL_AFTER = 20


async def ask(client: AsyncPlait, question: str = "Hi.", *, tokens: int = 8) -> ChatCompletion:
    return await client.chat.completions.create(model=MODEL, messages=talk(question), max_tokens=tokens, temperature=0)


@pytest.mark.parametrize("journalled", [False, True], ids=["before it came", "before it was acknowledged"])
async def test_gateway_killed_between_answer_and_voucher_loses_nothing(
    net: LiveNetwork, tmp_path: Path, journalled: bool
) -> None:
    gateway, transport = net.nodes["gateway"], Watched()

    def kill(request: httpx.Request) -> None:
        if request.url.path == "/v1/vouchers" and gateway.alive:
            gateway.kill()
            raise httpx.ReadError("the gateway died")

    async with net.payer(tmp_path, transport=transport) as client:
        if journalled:
            transport.after = kill
        else:
            transport.before = kill
        answer = await ask(client)
        assert answer.choices[0].message.content
        assert not answer.acknowledged
        channel = (await client.purse()).channel(net.owner("gateway"))
        assert channel.cumulative == answer.receipt.price
        # A voucher that the gateway has in its journal may be claimed before the gateway dies.
        possible = {"signed", "claimed"} if journalled else {"signed"}
        assert (await client.jobs.get(answer.id)).status in possible

        transport.before = transport.after = lambda _: None
        await net.restart("gateway")
        if journalled:
            assert len(await net.settled(channel.id)) == 1
        again = await ask(client, "Hello.")
        assert again.acknowledged
        claims = await net.settled(channel.id, cumulative=channel.cumulative)
        first, second = answer.receipt.price, again.receipt.price
        assert [(claim.cumulative, claim.jobs) for claim in claims] == [(first, 1), (first + second, 2)]
        statuses = [(await client.jobs.get(each.id)).status for each in (answer, again)]
        assert statuses == ["claimed", "claimed"]
    async with net.reader() as reader:
        assert (await audit(reader)).findings == ()


async def test_stage_killed_in_an_answer_is_named_and_the_next_request_goes_over_the_spare(
    net: LiveNetwork, tmp_path: Path
) -> None:
    async with net.payer(tmp_path) as client:
        stream = await client.chat.completions.create(
            model=MODEL, messages=talk(STORY), max_tokens=200, temperature=0, stream=True
        )
        victim = None
        with pytest.raises(StageFailedError) as caught:
            async for _ in stream:
                if victim is None and stream.usage.completion_tokens >= KILL_AFTER:
                    job = stream._run.verifier.job
                    assert job is not None
                    victim = net.by_owner(job.route[1].node)
                    victim.kill()
        assert victim is not None
        assert "0x" + victim.owner.hex() in caught.value.text
        assert "10-19" in caught.value.text
        assert 0 < stream.verified_tokens <= stream.usage.completion_tokens < 200
        spent = await client.jobs.get(stream.id)
        assert spent.ended is not None
        assert 0 < spent.paid <= stream.price_of(stream.verified_tokens)

        answer = await ask(client, tokens=12)
        middle = address(answer.job.route[1].node)
        assert middle != victim.owner
        assert net.by_owner(middle).alive
        assert answer.verification.level == "L0"
        channel = (await client.purse()).channel(net.owner("gateway"))
        total = spent.paid + answer.receipt.price
        assert (channel.cumulative, channel.credit) == (total, 0)
        assert (await net.settled(channel.id, cumulative=total))[-1].jobs == 2
    async with net.reader() as reader:
        assert (await audit(reader)).findings == ()
