"""Workers of two strangers serve at one gateway: one dies in an answer, the other goes on, both are paid and claim."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from chain_tests.live.network import INPUT_PRICE, MODEL, OUTPUT_PRICE, TOKEN, UP_S, LiveNetwork, launch, talk, until
from chain_tests.live.test_thread_gateways import Process, started

from plait.chain import WORKER
from plait.client.core import AsyncStream
from plait.protocol.codec import receipt_leaf_from_pb, signed_from_pb
from plait.protocol.ids import Address, Hash, channel_id, to_hex
from plait.protocol.messages import Quote
from plait.protocol.money import MILLION, job_price
from plait.protocol.pb import gateway_pb2
from plait.protocol.receipts import ReceiptLeaf
from plait.protocol.tree import tree_root
from plait.protocol.typed import Key
from plait.protocol.windows import progress_to
from plait_audit import audit
from plait_node.home import Home
from plait_node.ports import free_port
from plait_node.swarm import DhtKey

pytestmark = pytest.mark.timeout(900)

STORY = "Write a long story about a lighthouse keeper and the sea."
TOKENS, KILL_AT = 90, 40
DEPOSIT, HELD, SHARE = 500, 10_000, 900_000


@dataclass(slots=True, kw_only=True)
class Strangers:
    """The gateway's account, and a worker process of each of two other owners."""

    account: Address
    workers: dict[Address, Process]

    def hop(self, owner: Address) -> Hash:
        """Return the channel over which the gateway pays an owner."""
        return channel_id(self.account, owner, self.account)


@pytest.fixture
async def strangers(net: LiveNetwork, tmp_path: Path) -> AsyncGenerator[Strangers]:
    """Yield the network with a gateway that pays strangers, whose own worker is away, and two such workers."""
    gateway, key = net.nodes["gateway"], net.service_key("gateway")
    file = gateway.home / "node.toml"
    before = file.read_text(encoding="utf-8")
    async with net.writer(key) as writer:
        await writer.mint(key.address, HELD)
    net.nodes["worker"].kill()
    workers = dict([await _worker(net, tmp_path / name) for name in ("oak", "yew")])
    trusted = json.dumps([to_hex(owner) for owner in workers])
    lines = f"channel_deposit = {DEPOSIT}\nchannels_most = {HELD}\nworkers_allowed = {trusted}\n"
    file.write_text(before + lines, encoding="utf-8")
    gateway.kill()
    await net.restart("gateway")
    try:
        for each in workers.values():
            await until(lambda each=each: (each.home / "ready.json").exists(), "a worker was not up", within_s=UP_S)
        yield Strangers(account=key.address, workers=workers)
    finally:
        for each in workers.values():
            with suppress(ProcessLookupError):
                each.process.kill()
            each.process.wait()
        file.write_text(before, encoding="utf-8")
        gateway.kill()
        await net.restart("gateway")


async def _worker(net: LiveNetwork, folder: Path) -> tuple[Address, Process]:
    owner, service, seed = await net.wallet(tokens=1_000 * TOKEN), Key.generate(), os.urandom(32)
    async with net.writer(owner) as writer:
        await writer.register_node(WORKER, f"dht://127.0.0.1:{free_port()}", DhtKey(seed).public)
        await writer.stake(500 * TOKEN)
        await writer.add_service_key(service)
        for stage in (node for name, node in net.nodes.items() if name.startswith("stage")):
            await writer.open_channel(stage.owner, service.address, 50 * TOKEN)
    await net.call("anvil_setBalance", to_hex(service.address), hex(10**19))
    section = (
        f"[worker]\nmodel = {json.dumps(to_hex(net.model))}\ninput_price = {INPUT_PRICE}\n"
        f"output_price = {OUTPUT_PRICE}\nshare = {SHARE}"
    )
    home = Home.create(folder, service=service, dht_seed=seed)
    return owner.address, started(net, home, owner.address, section)


async def quoted(net: LiveNetwork, owners: set[Address]) -> None:
    """Wait until one quote names the workers of all these owners."""
    call = gateway_pb2.QuoteCall(model=net.model).SerializeToString()
    async with httpx.AsyncClient(base_url=net.gateway_url, timeout=60.0) as http, asyncio.timeout(240):
        while True:
            reply = await http.post("/v1/quotes", content=call)
            if reply.status_code == 200:
                quote = signed_from_pb(gateway_pb2.QuoteReply.FromString(reply.content).quote, Quote).message
                if {worker.node for worker in quote.workers} == owners:
                    assert {worker.share for worker in quote.workers} == {SHARE}
                    return
            await asyncio.sleep(0.5)


async def told(stream: AsyncStream, strangers: Strangers, *, kill: bool) -> tuple[str, dict[Address, int]]:
    """Return an answer's text, and what its price brought each owner; in its middle its worker may be killed."""
    text, killed = "", not kill
    async for chunk in stream:
        text += chunk.choices[0].delta.content or ""
        job = stream._run.verifier.job
        if not killed and job is not None and stream.usage.completion_tokens >= KILL_AT:
            strangers.workers[job.worker].process.kill()
            killed = True
    return text, earned(stream)


def earned(stream: AsyncStream) -> dict[Address, int]:
    """Return each owner's part of an answer's price, from its segments."""
    run, found, output, before = stream._run, dict[Address, int](), 0, 0
    terms, inputs = run.prepared.offer.quote.message.terms[0], stream.usage.prompt_tokens
    for job, end, _ in run.verifier.closed:
        to = progress_to(prompt_end=inputs + job.start, input_tokens=inputs, start=job.start, window_end=end)
        output += to - job.start
        price = job_price(terms, input_tokens=inputs, output_tokens=output)
        found[job.worker] = found.get(job.worker, 0) + price - before
        before = price
    assert before == stream.completion.receipt.price
    return found


async def leaves(net: LiveNetwork, channel: Hash) -> list[ReceiptLeaf]:
    """Return a channel's ended jobs as the gateway publishes them."""
    async with httpx.AsyncClient(base_url=net.gateway_url, timeout=60.0) as http:
        reply = await http.get(f"/v1/receipts/{to_hex(channel)}/0")
    return [receipt_leaf_from_pb(each.leaf) for each in gateway_pb2.ReceiptListing.FromString(reply.content).entries]


def shares(parts: Sequence[dict[Address, int]], owner: Address) -> int:
    return sum(part.get(owner, 0) * SHARE // MILLION for part in parts)


async def test_worker_of_another_owner_goes_on_and_both_are_paid_for_their_windows(
    net: LiveNetwork, strangers: Strangers, tmp_path: Path
) -> None:
    owners = set(strangers.workers)
    await quoted(net, owners)
    ask = {"model": MODEL, "messages": talk(STORY), "max_tokens": TOKENS, "temperature": 0, "stream": True}
    async with net.payer(tmp_path / "payer") as client:
        first = await client.chat.completions.create(**ask)
        text, whole = await told(first, strangers, kill=False)
        assert len(whole) == 1
        second = await client.chat.completions.create(**ask)
        again, parts = await told(second, strangers, kill=True)
        assert again == text
        assert set(parts) == owners
        assert second.completion.acknowledged
        channel = (await client.purse()).channel(net.owner("gateway"))
        total = first.completion.receipt.price + second.completion.receipt.price
        assert (channel.cumulative, channel.credit) == (total, 0)
        assert (await net.settled(channel.id, cumulative=total))[-1].jobs == 2
    dead = next(each for each in strangers.workers.values() if each.process.poll() is not None)
    dead.process = launch(dead.home / "node.toml", dead.log)
    for owner in owners:
        due = shares((whole, parts), owner)
        claims = await net.settled(strangers.hop(owner), cumulative=due)
        assert claims[-1].cumulative == due
        shown = await leaves(net, strangers.hop(owner))
        assert tree_root(each.encode() for each in shown) == claims[-1].root
        assert sum(each.hop_amount for each in shown) == due
        assert {each.hash for each in shown} <= {each.hash for each in await leaves(net, channel.id)}
        assert claims[-1].jobs == (owner in whole) + (owner in parts)
    async with net.reader() as reader:
        assert (await audit(reader)).findings == ()
