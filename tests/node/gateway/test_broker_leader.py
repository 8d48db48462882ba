"""A broker cluster loses its leader under a gateway: payers wait or hear when to come, no job is lost or paid twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from pathlib import Path
from time import monotonic

import httpx
import pytest
import pytest_asyncio
from tests.node.broker.cluster import Cluster
from tests.node.gateway.stand import DOMAIN, OUTPUT, Asked, Seen, Stand, fault, parse_sse
from tests.sdk.swarm import Event

from plait.protocol import codec
from plait.protocol.ids import Address, group_id, to_hex
from plait.protocol.messages import Finish, Receipt
from plait.protocol.pb import gateway_pb2
from plait.protocol.receipts import RECEIPT, ReceiptLeaf
from plait_node.broker import BrokerError, NatsBroker
from plait_node.broker.subjects import JOBS

pytestmark = pytest.mark.timeout(240)

OUTAGE_S = 60.0  # how long one call may be repeated: ten times what a cluster takes
HARDWARE = "cpu-short-slow"


@pytest_asyncio.fixture
async def over(tmp_path: Path) -> AsyncIterator[tuple[Stand, Cluster]]:
    """Yield a cluster that knows the gateway and the worker of a stand."""
    stand = Stand(tmp_path / "stand", patience_s=OUTAGE_S)
    me, others = stand.swarm.worker.owner, (Address(bytes([1]) * 20), Address(bytes([2]) * 20))
    models = (stand.swarm.manifest.model_id, stand.swarm.manifest.model_id)
    cluster = Cluster(folder=tmp_path / "cluster", gateway=stand.me, workers=(me, *others), models=models)
    try:
        await asyncio.to_thread(cluster.start)
        yield stand, cluster
    finally:
        await asyncio.to_thread(cluster.stop)


class Crowd:
    """One payer that asks again and again over HTTP and pays each answer, and one worker that answers."""

    def __init__(self, stand: Stand, client: httpx.AsyncClient, broker: NatsBroker) -> None:
        self.stand, self.client, self.broker = stand, client, broker
        self.stopping = False
        self.asked: dict[bytes, Asked] = {}
        self.taken: dict[bytes, tuple[float, float]] = {}  # when the call was made, and when the gateway took the job
        self.given: set[bytes] = set()
        self.refusals: list[httpx.Response] = []
        self.paying = asyncio.Lock()  # a channel's payments are told in their order
        self.answers: list[asyncio.Task[None]] = []

    async def insist(self, path: str, content: bytes) -> httpx.Response:
        """Make one call until it is not refused for the moment."""
        async with asyncio.timeout(OUTAGE_S):
            while (response := await self.client.post(path, content=content)).status_code == 503:
                self.refusals.append(response)
                await asyncio.sleep(float(response.headers["retry-after"]))
        assert response.status_code == 200, fault(response)
        return response

    async def ask(self) -> None:
        """Ask until told to stop; every job that the gateway took is followed to its last payment."""
        quote = await self.stand.quote(self.client)
        while not self.stopping:
            async with self.paying:
                asked = self.stand.ask(quote)
                self.asked[asked.name] = asked
                began = monotonic()
                await self.insist("/v1/jobs", asked.call.SerializeToString())
                self.taken[asked.name] = began, monotonic()
            self.answers.append(asyncio.create_task(self.follow(asked)))
            await asyncio.sleep(0.05)

    async def follow(self, asked: Asked) -> None:
        seen: list[Seen] = []
        async with asyncio.timeout(3 * OUTAGE_S):
            while not seen or seen[-1].kind != "receipt":
                after = seen[-1].sequence if seen else 0
                path = f"/v1/jobs/{to_hex(asked.name)}/events"
                fresh = parse_sse((await self.insist(path, self.stand.resume(asked, after))).content)
                seen += [each for each in fresh if each.kind != "error"]
        assert [each.sequence for each in seen] == sorted({each.sequence for each in seen})
        assert sum(each.kind == "receipt" for each in seen) == 1
        receipt = codec.signed_from_pb(seen[-1].event.receipt, Receipt)
        price = receipt.message.price
        leaf = ReceiptLeaf(kind=RECEIPT, hash=receipt.digest(DOMAIN), hop_amount=price, windows_paid=5)
        async with self.paying:
            payment = self.stand.payer.channel(self.stand.me).end_job(asked.name, leaf, to=len(OUTPUT))
            call = gateway_pb2.VoucherCall(payment=codec.payment_to_pb(payment))
            await self.insist("/v1/vouchers", call.SerializeToString())

    async def work(self) -> None:
        """Answer what comes; what was answered and comes again is only acknowledged."""
        group = group_id(self.stand.swarm.manifest.model_id, HARDWARE, 0, 0)
        made: dict[bytes, list[Event]] = {}
        async with aclosing(self.broker.jobs(group)) as jobs:
            async for delivery in jobs:
                asked = self.asked[delivery.request]
                events = made.setdefault(
                    asked.name, list(self.stand.answer(asked).events(OUTPUT, Finish.LENGTH, chunk=20))
                )
                with suppress(BrokerError):  # the job comes again
                    async with delivery.working():
                        for place, event in enumerate(events):
                            if event.kind in ("job", "receipt"):
                                await self.stand.deposit(event.body)
                            await self.stand.publish(asked, event, f"1.{place}")
                    self.given.add(asked.name)
                    await delivery.ack()

    async def taken_after(self, moment: float) -> float:
        """Wait until a call that was made after a moment has brought a job in; return when."""
        async with asyncio.timeout(OUTAGE_S):
            while True:
                found = [ended for began, ended in self.taken.values() if began > moment]
                if found:
                    return min(found)
                await asyncio.sleep(0.02)


async def test_leader_killed_under_a_gateway_loses_no_job_and_takes_no_voucher_twice(
    over: tuple[Stand, Cluster],
) -> None:
    stand, cluster = over
    gateway, worker = await cluster.as_gateway(), await cluster.as_worker(0)
    stand.broker = worker
    await stand.offer(hardware=HARDWARE, room=100)
    async with stand.running(broker=gateway) as client:
        crowd = Crowd(stand, client, worker)
        asking, working = asyncio.create_task(crowd.ask()), asyncio.create_task(crowd.work())
        async with asyncio.timeout(OUTAGE_S):
            while len(crowd.given) <= 3:  # noqa: ASYNC110 - the other side is a server
                await asyncio.sleep(0.1)
        leader = await cluster.leader(JOBS.name)
        cluster.kill(leader)
        killed = monotonic()
        again_s = await crowd.taken_after(killed) - killed
        await asyncio.sleep(2.0)
        crowd.stopping = True
        await asking
        await asyncio.gather(*crowd.answers)
        working.cancel()

        state = stand.book.state(stand.payer.payer, stand.payer.signer)
        rows = await gateway.shared.rows(stand.me, stand.payer.channel(stand.me).id, after=0, most=10_000)
        pays = [row.record.body for row in rows if row.record.kind == "pay"]
        print(  # noqa: T201 - a measure
            f"\n{len(crowd.taken)} jobs over HTTP, leader {leader} killed: one taken again after {again_s:.2f} s, "
            f"{len(crowd.refusals)} refusals"
        )
        assert {each.headers["retry-after"] for each in crowd.refusals} <= {"1", "2", "3"}
        assert all(fault(each).text and fault(each).retry for each in crowd.refusals)
        assert crowd.given == set(crowd.taken) == set(crowd.asked)
        assert state is not None
        assert (state.voucher.message.jobs, state.credit) == (len(crowd.taken), 0)
        assert len(pays) == len(set(pays)) == 2 * len(crowd.taken)
    for broker in (gateway, worker):
        await broker.close()
