"""Processes that die at the worst moment: nothing is lost, nothing beyond what was delivered is paid."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from chain_tests.live.network import MODEL, LiveNetwork, Node, talk
from chain_tests.live.tampering import Watched

from plait import AsyncPlait
from plait.client.answers import ChatCompletion
from plait.protocol.ids import address
from plait.protocol.messages import Job
from plait_audit import audit

pytestmark = pytest.mark.timeout(900)

STORY = "Write a long story about a lighthouse keeper and the sea."
KILL_AFTER, STILL_S = 20, 4.0


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


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
async def test_stage_lost_in_an_answer_is_replaced_and_no_token_changes(
    net: LiveNetwork, tmp_path: Path, how: signal.Signals
) -> None:
    async with net.payer(tmp_path) as client:
        undisturbed = await ask(client, STORY, tokens=80)
        answer, victim = await _disturbed(net, client, lambda job: net.by_owner(job.route[1].node), how)
        assert answer.choices[0].message.content == undisturbed.choices[0].message.content
        assert answer.job.attempt > 1
        assert address(answer.job.route[1].node) != victim.owner
        assert [address(stage.node) for stage in answer.job.route][::2] == [
            address(stage.node) for stage in undisturbed.job.route
        ][::2]
        await _paid_once(net, client, undisturbed, answer)
    if how == signal.SIGSTOP:
        victim.kill()


async def test_worker_killed_in_an_answer_goes_on_behind_what_was_delivered(net: LiveNetwork, tmp_path: Path) -> None:
    async with net.payer(tmp_path) as client:
        undisturbed = await ask(client, STORY, tokens=80)
        restarting: list[asyncio.Task[None]] = []

        def worker(_: Job) -> Node:
            restarting.append(asyncio.create_task(net.restart("worker")))
            return net.nodes["worker"]

        answer, _ = await _disturbed(net, client, worker, signal.SIGKILL)
        await asyncio.gather(*restarting)
        assert answer.choices[0].message.content == undisturbed.choices[0].message.content
        assert answer.job.attempt > 1
        await _paid_once(net, client, undisturbed, answer)


@pytest.mark.parametrize(("who", "after"), [("worker", 1), ("stage that nobody can replace", KILL_AFTER)])
async def test_process_that_stands_still_for_some_seconds_is_found_again(
    net: LiveNetwork, tmp_path: Path, who: str, after: int
) -> None:
    """A busy disk or a suspended machine is no death: the links are lost, and made again."""

    def choose(job: Job) -> Node:
        still = net.nodes["worker"] if who == "worker" else net.by_owner(job.route[0].node)
        asyncio.get_running_loop().call_later(STILL_S, os.kill, still.pid, signal.SIGCONT)
        return still

    async with net.payer(tmp_path) as client:
        undisturbed = await ask(client, STORY, tokens=80)
        answer, _ = await _disturbed(net, client, choose, signal.SIGSTOP, after=after)
        assert answer.choices[0].message.content == undisturbed.choices[0].message.content
        assert answer.job.attempt > 1
        await _paid_once(net, client, undisturbed, answer)


async def _disturbed(
    net: LiveNetwork, client: AsyncPlait, choose: Callable[[Job], Node], how: signal.Signals, *, after: int = KILL_AFTER
) -> tuple[ChatCompletion, Node]:
    """Ask, and send a signal to one of those who answer once some tokens are out."""
    stream = await client.chat.completions.create(
        model=MODEL, messages=talk(STORY), max_tokens=80, temperature=0, stream=True
    )
    victim: Node | None = None
    async for _ in stream:
        if victim is None and stream.usage.completion_tokens >= after:
            job = stream._run.verifier.job
            assert job is not None
            victim = choose(job)
            os.kill(victim.pid, how)
    assert victim is not None
    return stream.completion, victim


async def _paid_once(net: LiveNetwork, client: AsyncPlait, *answers: ChatCompletion) -> None:
    """Check that the channel paid just what the receipts say, and that the auditor finds nothing."""
    channel = (await client.purse()).channel(net.owner("gateway"))
    total = sum(answer.receipt.price for answer in answers)
    assert (channel.cumulative, channel.credit) == (total, 0)
    assert (await net.settled(channel.id, cumulative=total))[-1].jobs == len(answers)
    async with net.reader() as reader:
        assert (await audit(reader)).findings == ()
