"""What a job leaves in a real broker once it was answered, paid and ended: nothing but its money's log."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest
from tests.node.gateway.stand import CALL_S, Stand, fault
from tests.node.gateway.test_takeover import last_payment

from plait_node.broker import LocalServer, NatsBroker, subjects

pytestmark = pytest.mark.asyncio(loop_scope="session")

_OF_JOBS = (subjects.JOBS, subjects.RESULTS, subjects.PAYS, subjects.ACKS, subjects.TAKEN)


async def left(broker: NatsBroker) -> dict[str, int]:
    """Count the subjects that jobs have in the broker, and the consumers."""
    connection = broker._connection
    found = {plan.name: len(await connection.subjects_of(plan.name, plan.pattern)) for plan in _OF_JOBS}
    infos = [await connection._stream.stream_info(plan.name) for plan in subjects.STREAMS]
    return {name: count for name, count in found.items() if count} | {
        "consumers": sum(info.state.consumer_count for info in infos)
    }


async def test_jobs_that_ended_leave_nothing_in_the_broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subjects, "LAST_LIFE_S", 1)
    server = await LocalServer.start(tmp_path / "nats")
    broker = await NatsBroker.connect(server.url)
    stand = Stand(tmp_path, broker)
    try:
        async with stand.running() as client:
            for _ in range(3):
                asked = await stand.submitted(client)
                async with aclosing(broker.jobs(asked.quote.message.group)) as jobs, asyncio.timeout(CALL_S):
                    delivery = await anext(jobs)
                await stand.work(asked)
                assert (await stand.pay(client, asked, 12)).status_code == 200
                seen = await stand.follow(client, asked)
                assert subjects.PAYS.name in await left(broker)
                await delivery.ack()
                payment, _ = last_payment(stand, asked, seen[-1])
                response = await stand.send(client, payment)
                assert response.status_code == 200, fault(response)
            async with asyncio.timeout(CALL_S):
                while await left(broker) != {"consumers": 3}:  # noqa: ASYNC110 - one for each priority; a broker tells nobody
                    await asyncio.sleep(0.1)
    finally:
        await broker.close()
        await server.stop()
