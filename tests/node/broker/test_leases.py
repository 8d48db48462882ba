"""What gateways of one owner share, over a real nats-server and in memory."""

from __future__ import annotations

import asyncio
import secrets

import pytest
from tests.node.broker.test_face import call_of
from tests.node.broker.waiting import SOON_S

from plait_node.broker import LEASE_LIFE_S, Broker, BrokerClosedError, LogRecord, LogRow, MemoryBroker

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture
def gateway() -> bytes:
    return secrets.token_bytes(20)


@pytest.fixture
def channel() -> bytes:
    return secrets.token_bytes(32)


def record(holder: str = "aa", body: bytes = b"") -> LogRecord:
    return LogRecord(kind="pay" if body else "fence", holder=holder, body=body, at=1_800_000_000, earned=1 << 90)


async def test_record_is_stored_behind_the_row_that_its_writer_saw_last(
    broker: Broker, gateway: bytes, channel: bytes
) -> None:
    shared = broker.shared
    assert await shared.last(gateway, channel) is None
    first = await shared.append(gateway, channel, record(body=b"one"), after=0)
    assert first is not None
    assert await shared.append(gateway, channel, record("bb", b"other"), after=0) is None
    second = await shared.append(gateway, channel, record("bb"), after=first)
    assert second is not None
    assert await shared.append(gateway, channel, record(body=b"two"), after=first) is None
    assert await shared.append(gateway, secrets.token_bytes(32), record(), after=second) is None

    rows = [LogRow(sequence=first, record=record(body=b"one")), LogRow(sequence=second, record=record("bb"))]
    assert await shared.rows(gateway, channel, after=0, most=10) == rows
    assert await shared.rows(gateway, channel, after=0, most=1) == rows[:1]
    assert await shared.rows(gateway, channel, after=first, most=10) == rows[1:]
    assert await shared.last(gateway, channel) == rows[1]
    assert await shared.channels(gateway) == [channel]
    assert await shared.channels(secrets.token_bytes(20)) == []


async def test_of_many_who_append_behind_the_same_row_one_succeeds(
    broker: Broker, gateway: bytes, channel: bytes
) -> None:
    tries = [broker.shared.append(gateway, channel, record(f"{at:02x}"), after=0) for at in range(20)]
    stored = [sequence for sequence in await asyncio.gather(*tries) if sequence is not None]
    assert len(stored) == 1


async def test_same_append_made_again_after_a_lost_answer_is_stored_once(
    broker: Broker, gateway: bytes, channel: bytes
) -> None:
    shared = broker.shared
    first = await shared.append(gateway, channel, record(body=b"one"), after=0)
    again = await shared.append(gateway, channel, record(body=b"one"), after=0)
    assert again in (first, None)  # a server tells a repeated message id, memory a wrong place
    assert len(await shared.rows(gateway, channel, after=0, most=10)) == 1


async def test_lease_ends_when_it_is_not_renewed_or_is_given_back(broker: Broker, gateway: bytes) -> None:
    shared = broker.shared
    for _ in range(3):
        await shared.renew(gateway, "aa", "http://a")
        await shared.renew(gateway, "bb", "http://b")
    assert await shared.living(gateway) == {"aa": "http://a", "bb": "http://b"}
    assert await shared.living(secrets.token_bytes(20)) == {}
    await shared.give_back(gateway, "aa")
    await shared.give_back(gateway, "aa")
    await shared.renew(gateway, "bb", "http://b")
    assert await shared.living(gateway) == {"bb": "http://b"}
    async with asyncio.timeout(LEASE_LIFE_S + SOON_S):
        while await shared.living(gateway):  # noqa: ASYNC110 - the server acts
            await asyncio.sleep(0.1)
    await shared.renew(gateway, "bb", "http://c")
    assert await shared.living(gateway) == {"bb": "http://c"}


async def test_job_that_was_taken_is_kept_by_its_request(broker: Broker, gateway: bytes) -> None:
    name = secrets.token_bytes(32)
    assert await broker.shared.job(gateway, name) is None
    for _ in range(2):
        await broker.shared.keep_job(gateway, name, call_of(b"sealed"))
    assert await broker.shared.job(gateway, name) == call_of(b"sealed")
    assert await broker.shared.job(secrets.token_bytes(20), name) is None


async def test_job_that_ended_is_forgotten_and_others_are_not(broker: Broker, gateway: bytes) -> None:
    name, other = secrets.token_bytes(32), secrets.token_bytes(32)
    for each in (name, other):
        await broker.shared.keep_job(gateway, each, call_of(b"sealed"))
    for _ in range(2):
        await broker.shared.forget_job(gateway, name)
        assert await broker.shared.job(gateway, name) is None
    assert await broker.shared.job(gateway, other) == call_of(b"sealed")


async def test_closed_broker_shares_nothing(gateway: bytes, channel: bytes) -> None:
    broker = MemoryBroker(lambda: 0.0)
    await broker.close()
    with pytest.raises(BrokerClosedError):
        await broker.shared.append(gateway, channel, record(), after=0)
