"""Callers of a real network through the SDK: each keeps one job in flight, and waits as long as a refusal asks."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.live.network import OneRoute
from bench.swarm.tally import Answered, Tally, Watched, waits

from plait import AsyncPlait
from plait.protocol.errors import PlaitError
from plait.protocol.ids import Address, Hash, hash32
from plait.protocol.receipts import RECEIPT, ReceiptLeaf
from plait_node.localnet.plan import MODEL

__all__ = ["Callers", "opened_callers", "told"]

TOKENS: Final = 32  # of an answer: short, so that many come and go
_DRAIN_S: Final = 180.0  # for the jobs that were accepted when a phase ends
_PAID_S: Final = 90.0
_LEAST_WAIT_S: Final = 0.5  # after an error that does not say when to come back


@dataclass(slots=True, kw_only=True)
class Callers:
    """Payers with a channel each; a caller is one of many coroutines that ask with a payer's client."""

    clients: Sequence[AsyncPlait]
    watched: Sequence[Watched]
    gateway: Address
    answered: list[Answered]
    _number: itertools.count[int]

    async def ask(self, count: int, seconds: float, *, ending: Callable[[], object]) -> tuple[Tally, float]:
        """Have `count` callers ask for some seconds; return what they saw and for how long.

        What comes after `ending` was called is not counted: jobs that were accepted come to their end.
        """
        tally, stop = Tally(), asyncio.Event()
        for each in self.watched:
            each.tally = tally
        places = zip(range(count), itertools.cycle(self.clients), strict=False)
        callers = [asyncio.create_task(self._keep_asking(client, tally, stop)) for _, client in places]
        began = time.monotonic()
        done, _ = await asyncio.wait(callers, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        took, tokens = time.monotonic() - began, tally.tokens
        stop.set()
        ending()
        try:
            for each in done:
                each.result()
            await self._drained(tally)
        finally:
            for each in callers:
                each.cancel()
            await asyncio.gather(*callers, return_exceptions=True)
        tally.tokens = tokens
        self.answered += tally.answered
        return tally, took

    async def arrive(self, every_s: float, seconds: float, tokens: int, tally: Tally) -> None:
        """Have a call come every so often, whatever became of those before; return when all have their answers."""
        for each in self.watched:
            each.tally = tally
        clients, calls, until = itertools.cycle(self.clients), set[asyncio.Task[float]](), time.monotonic() + seconds
        while time.monotonic() < until:
            calls.add(asyncio.create_task(self._one(next(clients), tally, tokens)))
            await asyncio.sleep(every_s)
        async with asyncio.timeout(_DRAIN_S):
            await asyncio.gather(*calls)
        self.answered += tally.answered

    async def _drained(self, tally: Tally) -> None:
        """Wait for the jobs that were accepted; those that still look for a place are called off."""
        async with asyncio.timeout(_DRAIN_S):
            while tally.queued or tally.looking:
                for each in tally.looking - tally.posting:
                    if each is not None:
                        each.cancel()
                await asyncio.sleep(0.05)

    async def _keep_asking(self, client: AsyncPlait, tally: Tally, stop: asyncio.Event) -> None:
        while not stop.is_set():
            wait_s = await self._one(client, tally)
            if wait_s and not stop.is_set():
                await asyncio.sleep(wait_s)

    async def _one(self, client: AsyncPlait, tally: Tally, tokens: int = TOKENS) -> float:
        """Ask once, to the answer's end; return for how long to wait then, in seconds."""
        called, caller = time.monotonic(), asyncio.current_task()
        accepted = first = 0.0
        tally.looking.add(caller)
        text = f"Write a few sentences about the number {next(self._number)}."
        try:
            stream = await client.chat.completions.create(
                model=MODEL,
                messages=[{"role": "user", "content": text}],
                max_tokens=tokens,
                temperature=0,
                stream=True,
            )
            accepted, before = time.monotonic(), 0
            async for _ in stream:
                first = first or time.monotonic()
                now = stream.usage.completion_tokens
                tally.tokens += now - before
                before = now
            done = stream.completion
        except PlaitError as error:
            (tally.failed if accepted else tally.given_up)[f"{error.code}: {error.text[:120]}"] += 1
            return max(_LEAST_WAIT_S, error.retry_after_s)
        finally:
            tally.queued.discard(caller)
            tally.looking.discard(caller)
        tally.answered.append(
            Answered(
                request=done.id,
                called=called,
                accepted=accepted,
                first=first,
                ended=time.monotonic(),
                tokens=done.usage.completion_tokens,
                paid=done.paid,
                acknowledged=done.acknowledged,
            )
        )
        return 0.0

    async def warm_up(self) -> None:
        """Have every payer ask once: channels are opened, compiled code is built. Raise the first error."""
        tally = Tally()
        await asyncio.gather(*(self._one(client, tally) for client in self.clients))
        if tally.failed or tally.given_up:
            raise RuntimeError(f"warming up failed: {dict(tally.failed + tally.given_up)}")
        self.answered += tally.answered

    async def accounts(self) -> dict[str, Any]:
        """Compare, once all is claimed, what answers cost with what payers signed, gateway and chain took."""
        wrong: list[str] = []
        spent = called_off = 0
        for number, client in enumerate(self.clients):
            purse = await client.purse()
            book = purse.channel(self.gateway)
            jobs = {hash32(name): purse.job(hash32(name)) for name in (await client.archive()).list()}
            mine = [each for each in self.answered if hash32(each.request) in jobs]
            cost = sum(each.paid for each in mine)
            open_ = sum(job.paid for job in jobs.values() if job is not None and job.leaf is None)
            if book.cumulative - book.credit != cost + open_:
                wrong.append(f"payer {number}: {book.cumulative} signed, {book.credit} credit, {cost} + {open_} spent")
            leaves = [each for each in await self._published(client, book.id) if each.kind == RECEIPT]
            if (len({each.hash for each in leaves}), sum(each.hop_amount for each in leaves)) != (len(mine), cost):
                wrong.append(f"payer {number}: {len(leaves)} receipts at the gateway, {len(mine)} answers here")
            if claimed := await self._unclaimed(client, cost, book.cumulative):
                wrong.append(f"payer {number}: {claimed}")
            spent, called_off = spent + cost, called_off + open_
        return {
            "answers": len(self.answered),
            "answers_twice": len(self.answered) - len({each.request for each in self.answered}),
            "not_acknowledged": sum(not each.acknowledged for each in self.answered),
            "base_units_spent": spent,
            "base_units_of_calls_called_off": called_off,
            "wrong": wrong,
        }

    async def _published(self, client: AsyncPlait, channel: Hash) -> list[ReceiptLeaf]:
        """Return the ended jobs of a channel as the gateway publishes them."""
        gateway = (await (await client.catalogue()).find(MODEL)).gateways[0]
        return await gateway.ended(channel, 1 << 31)

    async def _unclaimed(self, client: AsyncPlait, spent: int, signed: int) -> str:
        """Wait until a channel's claims reach what was spent; say what is wrong with them, if anything is."""
        edge, purse = await client.edge(), await client.purse()
        until = time.monotonic() + _PAID_S
        while (slot := await edge.channel(self.gateway, purse.session.address)).claimed < spent:
            if time.monotonic() > until:
                return f"{slot.claimed} claimed, {spent} spent"
            await asyncio.sleep(0.5)
        return f"{slot.claimed} claimed, only {signed} signed" if slot.claimed > signed else ""


def told(tally: Tally, took: float) -> dict[str, Any]:
    """Return a phase as JSON holds it."""
    return {
        "seconds": round(took, 1),
        "tokens_a_second": round(tally.tokens / took, 2),
        "jobs": len(tally.answered),
        **waits(tally.answered),
        "refused": dict(tally.refused.most_common()),
        "refused_without_reason_or_time": tally.broken[:5],
        "refused_early": {"count": len(tally.early), "first": tally.early[:5]},
        "queue_at_refusal": {"least": round(min(tally.fullness), 3)} if tally.fullness else {},
        "queue_limit": tally.limit,
        "given_up": dict(tally.given_up),
        "failed": dict(tally.failed),
    }


@asynccontextmanager
async def opened_callers(network: OneRoute, folder: Path, payers: int) -> AsyncGenerator[Callers]:
    """Open a client for each payer, each with a wallet and a folder of its own."""
    async with AsyncExitStack() as stack:
        clients: list[AsyncPlait] = []
        watched = [Watched(Tally()) for _ in range(payers)]
        for number, transport in enumerate(watched):
            client = AsyncPlait(
                rpc=network.rpc,
                deployment=network.deployment,
                key=await network.wallet(),
                home=folder / f"payer-{number}",
                transport=transport,
            )
            clients.append(await stack.enter_async_context(client))
        yield Callers(
            clients=clients,
            watched=watched,
            gateway=network.owners["gate"].key.address,
            answered=[],
            _number=itertools.count(),
        )
