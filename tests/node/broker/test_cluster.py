"""The three-server cluster of deploy/nats: streams in three copies, TLS, and keys that open no more than they must."""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from time import time

import pytest
import pytest_asyncio
from nats.errors import Error as NatsError
from tests.node.broker.cluster import NAMES, ROOT, Cluster
from tests.node.broker.waiting import SOON_S
from typer.testing import CliRunner

from plait.protocol.pb import gateway_pb2, signed_pb2
from plait_node.broker import BrokerAccess, BrokerDownError, LocalServer, NatsBroker, StreamsMissingError
from plait_node.broker.access import UserClient, connect_options
from plait_node.broker.cluster import ClusterPlan, ServerPlan, server_config, write_cluster
from plait_node.broker.connection import Connection
from plait_node.broker.groups import groups_of
from plait_node.broker.jetstream import ensure_streams
from plait_node.broker.subjects import ALL_STREAMS, JOBS
from plait_node.cli import app

pytestmark = pytest.mark.timeout(240)


@pytest_asyncio.fixture(loop_scope="session")
async def gateway(cluster: Cluster) -> AsyncIterator[NatsBroker]:
    broker = await cluster.as_gateway()
    yield broker
    await broker.close()


@pytest_asyncio.fixture(loop_scope="session")
async def worker(cluster: Cluster) -> AsyncIterator[NatsBroker]:
    broker = await cluster.as_worker(0)
    yield broker
    await broker.close()


def call_of(cluster: Cluster, text: bytes = b"sealed") -> gateway_pb2.JobCall:
    quote = signed_pb2.SignedQuote(message=signed_pb2.Quote(gateway=cluster.gateway))
    return gateway_pb2.JobCall(prompt=text, quote=quote)


def test_configuration_in_deploy_is_what_the_command_writes() -> None:
    plans = [ServerPlan(name=name, host=f"{name}.example", port=4222, cluster_port=6222) for name in NAMES]
    for plan in plans:
        assert (ROOT / "deploy" / "nats" / f"{plan.name}.conf").read_text() == server_config(plan, plans)


def test_cluster_written_again_keeps_keys_and_forgets_who_is_not_named(tmp_path: Path) -> None:
    server = ServerPlan(name="n1", host="n1.example", port=4222, cluster_port=6222)
    owners = [secrets.token_bytes(20) for _ in range(2)]

    def files() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    write_cluster(tmp_path, ClusterPlan(servers=[server], gateways=owners, workers=[]))
    before = files()
    write_cluster(tmp_path, ClusterPlan(servers=[server], gateways=owners[:1], workers=[]))
    after = files()

    assert {name for name in after if after[name] != before[name]} == {"users.conf"}
    assert owners[1].hex() not in after["users.conf"].decode()
    secret = [path for path in tmp_path.rglob("*") if path.suffix in (".key", ".seed")]
    assert len(secret) == 5
    assert all(path.stat().st_mode & 0o077 == 0 for path in secret)


async def test_cluster_keeps_every_stream_three_times(cluster: Cluster) -> None:
    operator = await cluster.as_operator()
    for name in ALL_STREAMS:
        info = await operator._stream.stream_info(name)
        assert info.config.num_replicas == 3, name
        assert info.cluster is not None
        assert {info.cluster.leader, *(peer.name for peer in info.cluster.replicas or ())} == set(NAMES)
    await operator.close()


async def test_job_offer_payment_and_answer_pass_between_users_with_keys(
    cluster: Cluster, gateway: NatsBroker, worker: NatsBroker
) -> None:
    request, me = secrets.token_bytes(32), cluster.workers[0]
    await worker.offer(me, cluster.models[0], gateway_pb2.WorkerOffer(body=b"mine"), group=cluster.group)
    assert [offer.body for offer in await gateway.offers()] == [b"mine"]
    assert await gateway.publish_job(cluster.group, 1, call_of(cluster), request=request)
    await gateway.bring_prompt(request, gateway_pb2.PromptCall(request=request, prompt=b"brought"))

    async with asyncio.timeout(2 * SOON_S), aclosing(worker.jobs(cluster.group)) as jobs:
        delivery = await anext(jobs)
        assert (delivery.request, await gateway.backlog(cluster.group)) == (request, 1)
        assert [each.call.prompt for each in await worker.prompts(request)] == [b"brought"]
        await worker.publish_result(cluster.gateway, request, me, gateway_pb2.ResultEvent(request=request), key="1.0")
        async with aclosing(gateway.results(cluster.gateway, request)) as results:
            assert (await anext(results)).worker == me
        await gateway.publish_pay(me, request, gateway_pb2.PayNotice(), key="1")
        async with aclosing(worker.payments(me, request)) as payments:
            await anext(payments)
        await worker.publish_ack(cluster.gateway, request, signed_pb2.Acknowledgement(credit=bytes(12)), key="1")
        async with aclosing(gateway.acks(cluster.gateway, request)) as acks:
            await anext(acks)
        before = await gateway.turnover(cluster.group)
        await delivery.ack()
        await delivery.ack()
    await emptied(gateway, cluster)
    assert await gateway.turnover(cluster.group) == before + 1
    await gateway.forget_results(cluster.gateway, request)
    await worker.withdraw_offer(me, cluster.models[0], group=cluster.group)
    assert await gateway.offers() == []


async def test_operators_key_is_enough_to_look_after_dead_letters(
    cluster: Cluster, gateway: NatsBroker, worker: NatsBroker
) -> None:
    request = secrets.token_bytes(32)
    call = call_of(cluster)
    call.request.message.deadline = int(time()) + 600
    await gateway.publish_job(cluster.group, 2, call, request=request)
    async with asyncio.timeout(2 * SOON_S), aclosing(worker.jobs(cluster.group)) as jobs:
        await (await anext(jobs)).dead("no stage was there")

        access = cluster.seed("operator")
        options = ["--broker", cluster.url, "--ca", str(access.ca), "--nkey", str(access.nkey)]
        for words in (["list"], ["requeue", request.hex()], ["list"]):
            told = await asyncio.to_thread(CliRunner().invoke, app, ["dead-letters", *words, *options])
            assert told.exit_code == 0, told.output
            assert ("no stage was there" in told.output) == (words == ["list"] and "1 dead" in told.output)
        assert "0 dead letters" in told.output

        again = await anext(jobs)
        assert (again.request, again.deliveries) == (request, 2)
        await again.ack()
    await emptied(gateway, cluster)


async def emptied(broker: NatsBroker, cluster: Cluster) -> None:
    """Wait until the group's queue is empty: an acknowledged job leaves all three copies a moment later."""
    async with asyncio.timeout(2 * SOON_S):
        while await broker.backlog(cluster.group):  # noqa: ASYNC110 - the other side is a server
            await asyncio.sleep(0.05)


async def raw(cluster: Cluster, access: BrokerAccess, errors: list[str]) -> UserClient:
    """Connect as a user who speaks to the server himself."""

    async def report(error: Exception) -> None:
        errors.append(str(error))

    key = access.key()
    client = UserClient(key)
    await client.connect(
        cluster.url.split(","),
        error_cb=report,
        connect_timeout=30,
        allow_reconnect=False,
        **connect_options(access, key),
    )
    return client


def forbidden(cluster: Cluster) -> list[tuple[str, str, str]]:
    """List who must not do what: (user, publish or subscribe, subject)."""
    # budget: a table, one row a line
    me, other = cluster.workers[0].hex(), cluster.workers[1].hex()
    foreign = groups_of(cluster.models[1], "cpu")[0].hex()
    mine = cluster.group.hex()
    request, gate = bytes(32).hex(), cluster.gateway.hex()
    jobs = JOBS.name
    worker = [
        ("publish", f"plait.job.{mine}.0"),
        ("publish", f"plait.result.{gate}.{request}.{other}"),
        ("publish", f"plait.pay.{me}.{request}"),
        ("publish", f"$KV.plait-workers.{bytes(32).hex()}.{other}.{mine}"),
        ("publish", f"$KV.plait-prompts.{request}"),
        ("publish", f"plait.dead.{foreign}.{request}"),
        ("publish", f"$JS.API.CONSUMER.MSG.NEXT.{jobs}.group-{foreign}-0"),
        ("publish", f"$JS.API.CONSUMER.CREATE.{jobs}.group-{foreign}-0.plait.job.{foreign}.0"),
        ("publish", f"$JS.API.CONSUMER.CREATE.{jobs}.group-{mine}-0.plait.job.{foreign}.0"),
        ("publish", f"$JS.API.CONSUMER.DURABLE.CREATE.{jobs}.group-{mine}-0"),
        ("publish", f"$JS.API.CONSUMER.DELETE.{jobs}.group-{mine}-0"),
        ("publish", f"$JS.ACK.{jobs}.group-{foreign}-0.1.1.1.1.0"),
        ("publish", f"$JS.API.DIRECT.GET.{jobs}"),
        ("publish", f"$JS.API.STREAM.PURGE.{jobs}"),
        ("publish", f"$JS.API.STREAM.DELETE.{jobs}"),
        ("subscribe", "plait.job.>"),
        ("subscribe", f"plait.wake.pay.{other}.*"),
        ("subscribe", "_INBOX.>"),
        ("subscribe", "*.>"),
        ("subscribe", ">"),
    ]
    gateway = [
        ("publish", f"plait.result.{gate}.{request}.{me}"),
        ("publish", f"plait.ack.{gate}.{request}"),
        ("publish", f"$KV.plait-workers.{bytes(32).hex()}.{me}.{mine}"),
        ("publish", f"$JS.API.CONSUMER.MSG.NEXT.{jobs}.group-{mine}-0"),
        ("publish", f"$JS.API.STREAM.PURGE.{jobs}"),
        ("publish", f"$JS.API.STREAM.UPDATE.{jobs}"),
        ("subscribe", f"plait.wake.result.{other}.*.*"),
        ("subscribe", ">"),
    ]
    operator = [
        ("publish", f"$JS.API.STREAM.DELETE.{jobs}"),
        ("publish", f"plait.pay.{me}.{request}"),
        ("publish", f"$JS.API.DIRECT.GET.{jobs}"),
        ("subscribe", "plait.>"),
    ]
    users = (("worker", worker), ("gateway", gateway), ("operator", operator))
    return [(user, act, subject) for user, denied in users for act, subject in denied]


async def test_keys_open_nothing_that_their_role_does_not_need(cluster: Cluster) -> None:
    accesses = {
        "worker": cluster.worker_access(0),
        "gateway": cluster.seed("gateway"),
        "operator": cluster.seed("operator"),
    }
    errors: dict[str, list[str]] = {user: [] for user in accesses}
    clients = {user: await raw(cluster, access, errors[user]) for user, access in accesses.items()}
    allowed = [case for case in forbidden(cluster) if not await refused(clients[case[0]], errors[case[0]], *case[1:])]
    for client in clients.values():
        await client.close()
    assert allowed == []


async def refused(client: UserClient, errors: list[str], act: str, subject: str) -> bool:
    """Tell whether the server calls this a violation of the user's permissions."""
    if act == "publish":
        await client.publish(subject, b"{}")
    else:
        await client.subscribe(subject)
    await client.flush(timeout=30)
    for _ in range(1_000):
        if any(
            "permissions violation" in error.lower() and f'"{subject}"'.lower() in error.lower() for error in errors
        ):
            return True
        await asyncio.sleep(0.01)
    return False


async def test_stranger_without_a_key_or_with_another_is_not_let_in(cluster: Cluster, tmp_path: Path) -> None:
    write_cluster(tmp_path, ClusterPlan(servers=[], gateways=[cluster.gateway], workers=[]))
    (other,) = (tmp_path / "seeds").iterdir()
    for access in (BrokerAccess(ca=cluster.ca), BrokerAccess(ca=cluster.ca, nkey=other)):
        with pytest.raises(NatsError, match=r"(?i)authorization"):
            await raw(cluster, access, [])
        with pytest.raises(BrokerDownError, match="Authorization Violation"):
            await NatsBroker.connect(cluster.url, access=access, timeout_s=5.0)


async def test_server_of_another_authority_is_not_trusted(cluster: Cluster, tmp_path: Path) -> None:
    write_cluster(tmp_path, ClusterPlan(servers=[], gateways=[], workers=[]))
    access = BrokerAccess(ca=tmp_path / "ca.pem", nkey=cluster.seed("gateway").nkey)
    with pytest.raises(ssl.SSLCertVerificationError):
        await raw(cluster, access, [])


async def test_streams_that_nobody_made_are_missed_aloud(tmp_path: Path) -> None:
    server = await LocalServer.start(tmp_path)
    connection = await Connection.open(server.url, name="test", timeout_s=SOON_S)
    with pytest.raises(StreamsMissingError, match="plait node broker streams"):
        await connection.check_stream(JOBS.name)
    await ensure_streams(connection)
    await connection.check_stream(JOBS.name)
    await connection.close()
    await server.stop()
