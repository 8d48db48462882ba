from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from tests.node.stage.driver import FaultError, Task, driver
from tests.node.stage.network import Network, network, until
from tests.node.stage.tiny import MANIFEST
from tests.node.wire.peers import DOMAIN

from plait.protocol.codec import signed_to_pb, to_pb
from plait.protocol.ids import HASH_ZERO, Address, Hash
from plait.protocol.messages import Request, Sampling
from plait.protocol.pb import signed_pb2
from plait.protocol.pb import stage_pb2 as pb
from plait.protocol.typed import Key, digest
from plait_node.policy import Guests

PROMPT = list(range(20))


async def refusal(task: Task, stage: int, frame: pb.Open) -> FaultError:
    await task.send(stage, pb.Frame(open=frame))
    with pytest.raises(FaultError) as caught:
        await task.hear()
    return caught.value


@dataclass(frozen=True)
class Case:
    code: str
    stage: int = 1
    task: dict[str, Any] | None = None
    frame: Callable[[Task], dict[str, object]] = lambda _: {}


def resigned(task: Task, **values: object) -> signed_pb2.SignedPay:
    return signed_to_pb(task.driver.payer.signed(DOMAIN, replace(task.pay.message, **values)))


def drawn(*, top_p: int) -> Sampling:
    return Sampling(temperature=700_000, top_p=top_p, top_k=0, stop=HASH_ZERO)


def foreign(task: Task) -> dict[str, object]:
    key = Key.generate()
    return {
        "request": signed_to_pb(key.signed(DOMAIN, task.request.message)),
        "pay": signed_to_pb(key.signed(DOMAIN, task.pay.message)),
    }


CASES = {
    "stage outside the route": Case("not_in_route", frame=lambda _: {"stage": 9}),
    "stage of another node": Case("not_in_route", stage=1, frame=lambda _: {"stage": 0}),
    "job of another worker": Case("not_in_route", task={"job": {"worker": Address(b"\x09" * 20)}}),
    "job behind its own rows": Case("verification", task={"job": {"row": 4_096}}),
    "job under another profile": Case("not_in_route", task={"job": {"profile": Hash(b"\x09" * 32)}}),
    "request for another model": Case("not_in_route", task={"request": {"model": Hash(b"\x09" * 32)}}),
    "job of another request": Case("verification", task={"job": {"request": Hash(b"\x09" * 32)}}),
    "job with another closesAt": Case("verification", task={"job": {"closes_at": 5}}),
    "deadline passed": Case("deadline", task={"request": {"deadline": 5}}),
    "deadline too far": Case("deadline", task={"request": {"deadline": int(time.time()) + 90_000}}),
    "max price too low": Case("price_too_low", task={"request": {"max_price": 1}}),
    "request of another quote": Case("bad_request", task={"request": {"quote": Hash(b"\x09" * 32)}}),
    "top_p of nothing": Case("bad_request", task={"request": {"sampling": drawn(top_p=0)}}),
    "top_p above one": Case("bad_request", task={"request": {"sampling": drawn(top_p=1_000_001)}}),
    "top_p of all bits": Case("bad_request", task={"request": {"sampling": drawn(top_p=2**32 - 1)}}),
    "no quote": Case("bad_request", frame=lambda _: {"quote": None}),
    "no pay": Case("bad_request", frame=lambda _: {"pay": None}),
    "no next record": Case("bad_request", frame=lambda _: {"next": None}),
    "pay below the input": Case("bad_request", frame=lambda task: {"pay": resigned(task, amount=1)}),
    "pay of another request": Case("bad_request", frame=lambda task: {"pay": resigned(task, request=HASH_ZERO)}),
    "pay by another key": Case(
        "bad_request", frame=lambda task: {"pay": signed_to_pb(Key.generate().signed(DOMAIN, task.pay.message))}
    ),
    "request by a key without a channel": Case("channel_unknown", frame=foreign),
    "quote by a stranger": Case(
        "verification", frame=lambda task: {"quote": signed_to_pb(Key.generate().signed(DOMAIN, task.quote.message))}
    ),
    "job by a stranger": Case(
        "verification", frame=lambda task: {"job": signed_to_pb(Key.generate().signed(DOMAIN, task.job.message))}
    ),
    "room below the prompt": Case("prompt_too_long", frame=lambda _: {"room": 19}),
    "room above the request": Case("prompt_too_long", frame=lambda _: {"room": 400}),
}


@pytest.fixture(scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory):
    async with network(tmp_path_factory.mktemp("stages")) as net, driver(net) as worker:
        yield net, worker


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
async def test_open_that_does_not_hold_is_refused_with_its_reason(shared: Any, case: Case) -> None:  # noqa: ANN401
    net, worker = shared
    task = worker.task(PROMPT, **(case.task or {}))
    fault = await refusal(task, case.stage, task.open_frame(case.stage, **case.frame(task)))
    assert fault.code == case.code
    assert net.nodes[case.stage].engine.open_jobs == 0
    assert not worker.links[case.stage].closed


async def test_open_at_another_price_or_range_is_refused(tmp_path: Path) -> None:
    async with network(tmp_path) as net, driver(net) as worker:
        route = [node.stage for node in net.nodes]
        for change in ({"price": 1}, {"first": 0}):
            bad = (route[0], replace(route[1], **change), route[2])
            task = worker.task(PROMPT, job={"route": bad})
            fault = await refusal(task, 1, task.open_frame(1))
            assert fault.code == "not_in_route"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda net, _: net.directory.staked.discard(net.nodes[2].identity.owner),
        lambda _, frame: frame.next.record.CopyFrom(signed_pb2.SignedRecord()),
        lambda net, frame: frame.next.CopyFrom(net.nodes[2].record(host="a/b")),
        lambda net, frame: frame.next.CopyFrom(net.nodes[2].record(first=0)),
        lambda net, frame: frame.next.CopyFrom(net.nodes[2].record(certificate=HASH_ZERO)),
        lambda net, frame: frame.next.CopyFrom(net.nodes[2].record(port=1)),
        lambda net, frame: frame.next.CopyFrom(net.nodes[0].record()),
    ],
    ids=["unstaked", "unsigned", "host", "blocks", "certificate", "nobody listens", "another node"],
)
async def test_open_next_stage_that_cannot_be_reached_is_blamed(
    tmp_path: Path, spoil: Callable[[Network, pb.Open], None]
) -> None:
    async with network(tmp_path) as net, driver(net) as worker:
        task = worker.task(PROMPT)
        frame = task.open_frame(1)
        spoil(net, frame)
        if not frame.next.record.signature:
            await task.send(1, pb.Frame(open=frame))
            await worker.links[1].wait_closed()
            return
        fault = await refusal(task, 1, frame)
        assert fault.code == "next_stage"
        assert fault.blamed == net.nodes[2].identity.owner
        assert net.nodes[1].engine.open_jobs == 0


async def test_open_more_than_fits_says_the_limit(tmp_path: Path) -> None:
    async with network(tmp_path) as net, driver(net) as worker:
        net.nodes[2].engine._kv_steps = 30
        task = worker.task(PROMPT, max_tokens=20)
        fault = await refusal(task, 2, task.open_frame(2))
        assert fault.code == "busy"
        assert "30" in str(fault)
        task = worker.task(list(range(60)) * 6, max_tokens=100)
        net.nodes[2].engine.manifest = replace(net.nodes[2].engine.manifest)
        object.__setattr__(net.nodes[2].role._engine, "_kv_steps", 30)
        assert (await refusal(task, 2, task.open_frame(2))).code == "busy"


async def test_open_above_the_models_context_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.node.stage.tiny.CONTEXT", 50)
    async with network(tmp_path) as net, driver(net) as worker:
        task = worker.task(PROMPT, max_tokens=40)
        fault = await refusal(task, 2, task.open_frame(2))
        assert fault.code == "prompt_too_long"
        assert "50" in str(fault)
        assert net.nodes[2].engine.open_jobs == 0


async def test_open_more_jobs_than_allowed_is_busy(tmp_path: Path) -> None:
    async with network(tmp_path, max_jobs=1) as net, driver(net) as worker:
        await worker.task(PROMPT).open()
        task = worker.task(PROMPT)
        fault = await refusal(task, 2, task.open_frame(2))
        assert fault.code == "busy"


async def test_stage_that_closes_finishes_its_jobs_and_opens_no_other(tmp_path: Path) -> None:
    async with network(tmp_path) as net, driver(net) as worker:
        task = worker.task([1, 2, 3])
        await task.open()
        await task.start()
        for node in net.nodes:
            node.role.close()
            assert node.role.busy
        other = worker.task([1, 2, 3])
        assert (await refusal(other, 2, other.open_frame(2))).code == "busy"
        assert await task.generate(4) == task.expected(4)
        await task.pay_stages(16)
        await task.end()
        await until(lambda: not any(node.role.busy for node in net.nodes))


async def test_stage_waits_a_moment_for_the_last_payment_of_a_job(tmp_path: Path) -> None:
    async with network(tmp_path, unpaid_s=60) as net, driver(net) as worker:
        task = worker.task([1, 2, 3])
        await task.open()
        await task.start()
        await task.generate(4)
        await task.end()
        await until(lambda: net.nodes[0].engine.open_jobs == 0)
        role = net.nodes[0].role
        assert role.busy
        role._config = replace(role._config, unpaid_s=0.2)
        await until(lambda: not role.busy)


async def test_open_more_jobs_of_one_worker_than_allowed_is_busy_for_it_alone(tmp_path: Path) -> None:
    async with network(tmp_path, worker_jobs=1) as net, driver(net) as worker, driver(net) as other:
        first = worker.task(PROMPT)
        await first.open()
        task = worker.task(PROMPT)
        fault = await refusal(task, 2, task.open_frame(2))
        assert fault.code == "busy"
        assert "1 of your jobs" in str(fault)
        await other.task(PROMPT).open()
        await first.to_all(pb.Frame(cancel=pb.CancelJob(job=first.hash)))
        await until(lambda: all(node.role.facts.queue <= 2 and node.engine.open_jobs == 1 for node in net.nodes))
        await task.open()


def row_bytes_of(steps: int) -> int:
    return steps * 4 * MANIFEST.hidden


async def test_open_beyond_the_memory_for_rows_is_busy_until_a_job_ends(tmp_path: Path) -> None:
    async with network(tmp_path, rows_bytes=row_bytes_of(50)) as net, driver(net) as worker:
        rows = [node.role.facts.rows for node in net.nodes]
        first = worker.task(PROMPT)
        await first.open()
        assert [each.used for each in rows] == [row_bytes_of(28), row_bytes_of(28), 0]  # the tail sends no rows
        assert [node.role.facts.free_steps <= 22 for node in net.nodes] == [True, True, False]
        task = worker.task(PROMPT)
        fault = await refusal(task, 1, task.open_frame(1))
        assert fault.code == "busy"
        assert "rows of 28 steps" in str(fault)
        assert (rows[1].used, net.nodes[1].engine.open_jobs) == (row_bytes_of(28), 1)
        await first.to_all(pb.Frame(cancel=pb.CancelJob(job=first.hash)))
        await until(lambda: not any(each.used for each in rows))
        await task.open()


async def test_open_of_more_rows_than_there_is_memory_for_says_the_limit(tmp_path: Path) -> None:
    async with network(tmp_path, rows_bytes=row_bytes_of(25)) as net, driver(net) as worker:
        task = worker.task(PROMPT)
        fault = await refusal(task, 0, task.open_frame(0))
        assert fault.code == "prompt_too_long"
        assert "at most 25 steps" in str(fault)
        assert net.nodes[0].role.facts.rows.used == 0


async def test_open_that_finds_no_room_gives_the_memory_for_rows_back(tmp_path: Path) -> None:
    async with network(tmp_path) as net, driver(net) as worker:
        net.nodes[1].engine._kv_steps = 20
        task = worker.task(PROMPT)
        assert (await refusal(task, 1, task.open_frame(1))).code == "busy"
        assert net.nodes[1].role.facts.rows.used == 0


async def test_open_of_a_payer_or_worker_that_is_not_served_is_refused(tmp_path: Path) -> None:
    async with network(tmp_path) as net, driver(net) as worker:
        task = worker.task(PROMPT)
        config, nobody = net.nodes[2].role._around.config, Guests(allowed=frozenset({net.nodes[0].identity.owner}))
        for who, changed in (("payer", {"payers": nobody}), ("worker", {"workers": nobody})):
            around = replace(net.nodes[2].role._around, config=replace(config, **changed))
            net.nodes[2].role._admission = replace(net.nodes[2].role._admission, around=around)
            fault = await refusal(task, 2, task.open_frame(2))
            assert fault.code == "not_served"
            assert f"does not serve {who}" in str(fault)


async def test_open_twice_is_refused_and_a_later_attempt_closes_the_former(tmp_path: Path) -> None:
    async with network(tmp_path) as net, driver(net) as worker:
        first = worker.task(PROMPT, attempt=3)
        await first.open()
        for attempt in (3, 2):
            again = worker.task(PROMPT, attempt=attempt, again=first)
            assert (await refusal(again, 1, again.open_frame(1))).code == "job_open"
        later = worker.task(PROMPT, attempt=4, again=first)
        fault = await refusal(later, 2, later.open_frame(2))  # the former job's fault comes first
        assert fault.code == "job_open"
        while 2 not in later.opened:
            await later.hear()
        await until(lambda: net.nodes[2].engine.open_jobs == 1)


async def test_start_that_cannot_be_fails_the_job(tmp_path: Path) -> None:
    async with network(tmp_path) as net, driver(net) as worker:
        for row, code in ((16, "prefix_gone"), (5, "stage")):
            task = worker.task(PROMPT)
            await task.open()
            await task.send(1, pb.Frame(start=pb.Start(job=task.hash, row=row, next_row=row)))
            with pytest.raises(FaultError) as caught:
                await task.hear()
            assert caught.value.code == code


async def test_request_from_the_chain_is_served_without_quote_and_pay(tmp_path: Path) -> None:
    known: set[Hash] = set()

    async def on_chain(_: Request, request: Hash) -> bool:
        return request in known

    async with network(tmp_path, on_chain=on_chain) as net, driver(net) as worker:
        task = worker.task(PROMPT, request={"quote": HASH_ZERO})
        plain = signed_pb2.SignedRequest(message=to_pb(task.request.message))
        changes = {"request": plain, "quote": None, "pay": None}
        fault = await refusal(task, 2, task.open_frame(2, **changes))
        assert (fault.code, "chain knows no" in str(fault)) == ("bad_request", True)
        known.add(digest(DOMAIN, task.request.message))
        for stage in range(3):
            await task.send(stage, pb.Frame(open=task.open_frame(stage, **changes)))
        while len(task.opened) < 3:
            await task.hear()
        await task.start()
        assert await task.generate(4) == task.expected(4)
        await task.pay_stages(16)
        task.check_leaves(await task.end())
        assert len(task.acks) == 3
        for change in ({"job": {"closes_at": 1}}, {"job": {"request": HASH_ZERO}}):
            bad = worker.task(PROMPT, request={"quote": HASH_ZERO}, **change)
            known.add(digest(DOMAIN, bad.request.message))
            plain = signed_pb2.SignedRequest(message=to_pb(bad.request.message))
            fault = await refusal(bad, 2, bad.open_frame(2, request=plain, quote=None, pay=None))
            assert fault.code == "bad_request"
