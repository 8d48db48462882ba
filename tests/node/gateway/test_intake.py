"""Everything that is refused before a job is taken, clearly and with no money moved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from tests.node.gateway.stand import DOMAIN, Asked, Stand, fault
from tests.sdk.swarm import NOW, TEMPLATE, tokenizer_json

from plait.protocol import codec
from plait.protocol.checks import check_quote
from plait.protocol.ids import Hash, keccak, to_hex
from plait.protocol.messages import Terms
from plait.protocol.pb import gateway_pb2, signed_pb2
from plait.protocol.receipts import ABORTED, ReceiptLeaf
from plait.protocol.typed import Key

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def stand(tmp_path: Path) -> Stand:
    made = Stand(tmp_path)
    await made.offer()
    return made


async def refusal(stand: Stand, change: Callable[[Asked], Asked] = lambda asked: asked, **asking: object) -> tuple:
    """Ask, change what was asked, submit; return status and fault, having checked that no money moved."""
    async with stand.running() as client:
        asked = change(stand.ask(await stand.quote(client), **asking))
        response = await stand.submit(client, asked)
        assert response.status_code >= 400
        assert stand.book.state(stand.payer.payer, stand.payer.signer) is None
        assert await stand.broker.backlog(asked.quote.message.group) == 0
        return response.status_code, fault(response)


async def test_quote_for_an_unknown_model_lists_those_served(stand: Stand) -> None:
    async with stand.running() as client:
        call = gateway_pb2.QuoteCall(model=bytes(32))
        response = await client.post("/v1/quotes", content=call.SerializeToString())
    assert response.status_code == 404
    said = fault(response)
    assert said.code == "unknown_model"
    assert f"tiny ({to_hex(stand.swarm.manifest.model_id)})" in said.text


async def test_quote_without_a_live_worker_says_so(stand: Stand) -> None:
    stand.now += 61  # the offer has run out
    async with stand.running() as client:
        call = gateway_pb2.QuoteCall(model=stand.swarm.manifest.model_id)
        response = await client.post("/v1/quotes", content=call.SerializeToString())
    assert (response.status_code, fault(response).code, fault(response).retry) == (503, "no_route", True)
    assert response.headers["retry-after"] == "5"


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"model": bytes(32)},
        {"max_input": 0},
        {"share": 1_000_001},
        {"room": 0},
        {"terms": []},
        {"hardware": "c\np"},
    ],
)
async def test_offer_that_makes_no_sense_is_not_quoted(tmp_path: Path, changes: dict[str, object]) -> None:
    stand = Stand(tmp_path)
    await stand.offer(**changes)
    async with stand.running() as client:
        listing = gateway_pb2.ModelListing.FromString((await client.get("/v1/models")).content)
        assert not any(each.terms for each in listing.models)
        call = gateway_pb2.QuoteCall(model=stand.swarm.manifest.model_id)
        response = await client.post("/v1/quotes", content=call.SerializeToString())
    assert fault(response).code == "no_route"


async def test_offer_signed_by_somebody_else_is_not_quoted(stand: Stand) -> None:
    stand.swarm.worker = replace(stand.swarm.worker, service=Key.generate())
    await stand.offer()
    async with stand.running() as client:
        listing = gateway_pb2.ModelListing.FromString((await client.get("/v1/models")).content)
        assert not any(each.terms for each in listing.models)


async def test_quote_says_the_workers_prices_and_limits_and_outlives_no_prekey(stand: Stand) -> None:
    quote_of = stand.prekey.message
    dear = replace(stand.swarm.terms, output_price=9_000_000)
    stand.prekey = stand.swarm.worker.service.signed(DOMAIN, replace(quote_of, expires=NOW + 100))
    await stand.offer(terms=[codec.to_pb(dear)], max_input=64)
    async with stand.running() as client:
        quote = await stand.quote(client)
    message = quote.message
    assert (message.terms, message.max_input, message.expires) == ((dear,), 64, NOW + 100)
    assert quote.signer(DOMAIN) == stand.swarm.gateway.service.address


async def test_prompt_longer_than_the_room_says_the_limit(stand: Stand) -> None:
    status, said = await refusal(stand, prompt=range(1_025))
    assert (status, said.code) == (400, "prompt_too_long")
    assert "1025" in said.text
    assert "1024" in said.text


async def test_max_price_below_the_quote_is_refused(stand: Stand) -> None:
    status, said = await refusal(stand, max_price=1)
    assert (status, said.code) == (400, "price_too_low")


async def test_channel_that_does_not_exist_is_refused(stand: Stand) -> None:
    stand.set_slot(deposit=0)
    status, said = await refusal(stand)
    assert (status, said.code) == (404, "channel_unknown")


async def test_deposit_too_small_for_the_whole_answer_is_refused(stand: Stand) -> None:
    stand.set_slot(deposit=359)  # 20 tokens in, 40 out, cost 360
    status, said = await refusal(stand)
    assert (status, said.code) == (402, "deposit_too_small")
    assert "360" in said.text
    assert "359" in said.text


async def test_channel_topped_up_a_moment_ago_is_seen(stand: Stand) -> None:
    stand.set_slot(deposit=100)
    async with stand.running() as client:
        asked = stand.ask(await stand.quote(client))
        assert fault(await stand.submit(client, asked)).code == "deposit_too_small"
        stand.set_slot(deposit=360)
        assert (await stand.submit(client, asked)).status_code == 200


async def test_channel_that_is_left_is_refused(stand: Stand) -> None:
    stand.set_slot(deposit=1_000, exit_at=NOW + 86_400)
    status, said = await refusal(stand)
    assert (status, said.code) == (409, "channel_exiting")


async def test_quote_that_expired_is_refused(stand: Stand) -> None:
    def later(asked: Asked) -> Asked:
        stand.now += 400
        return asked

    status, said = await refusal(stand, later)
    assert (status, said.code, said.retry) == (410, "quote_expired", True)


@pytest.mark.parametrize("offset", [-31, 3_700])
async def test_deadline_out_of_reach_is_refused(stand: Stand, offset: int) -> None:
    async with stand.running() as client:
        asked = stand.ask(await stand.quote(client))
        request = replace(asked.request.message, deadline=NOW + offset)
        signed = stand.session.signed(DOMAIN, request)
        asked.call.request.CopyFrom(codec.signed_to_pb(signed))
        response = await stand.submit(client, asked)
    assert (response.status_code, fault(response).code) == (400, "deadline")


async def test_gateway_whose_clock_is_behind_refuses_work_and_says_so(stand: Stand) -> None:
    stand.chain.time = NOW + 120
    status, said = await refusal(stand)
    assert (status, said.code) == (503, "clock")
    assert "120 s behind" in said.text


async def test_rpc_away_is_a_fault_that_may_be_retried_and_moves_nothing(stand: Stand) -> None:
    stand.chain.down = True
    status, said = await refusal(stand)
    assert (status, said.moved) == (503, False)


async def test_group_with_too_many_waiting_jobs_is_busy(stand: Stand) -> None:
    await stand.offer(room=1)
    async with stand.running() as client:
        quote = await stand.quote(client)
        for number in range(9):
            job = gateway_pb2.JobCall(quote=codec.signed_to_pb(quote))
            await stand.broker.publish_job(quote.message.group, 1, job, request=keccak(bytes([number])))
        response = await stand.submit(client, stand.ask(quote))
    assert (response.status_code, fault(response).code) == (503, "busy")


async def test_first_payment_below_the_prompts_price_is_refused(stand: Stand) -> None:
    def cheaper(asked: Asked) -> Asked:
        other = stand.payer.channel(Key.generate().address)  # a fresh channel of the payer's, so that a Pay can be made
        payment = other.pay(asked.name, 39, 0)
        voucher = replace(payment.voucher.message, payee=stand.me)
        signed = stand.session.signed(DOMAIN, voucher)
        pay = stand.session.signed(DOMAIN, replace(payment.pay.message, voucher=signed.struct_hash()))
        asked.call.payment.voucher.CopyFrom(codec.signed_to_pb(signed))
        asked.call.payment.pay.CopyFrom(codec.signed_to_pb(pay))
        return asked

    status, said = await refusal(stand, cheaper)
    assert (status, said.code) == (400, "bad_request")
    assert "40 base units, not 39" in said.text


async def test_quote_of_another_signer_is_refused(stand: Stand) -> None:
    async with stand.running() as client:
        quote = await stand.quote(client)
        forged = Key.generate().signed(DOMAIN, quote.message)
        response = await stand.submit(client, stand.ask(forged))
    assert (response.status_code, fault(response).code) == (401, "bad_signature")


async def test_quote_made_cheaper_by_its_reader_is_refused(stand: Stand) -> None:
    async with stand.running() as client:
        quote = await stand.quote(client)
        terms = Terms(profile=quote.message.terms[0].profile, input_price=0, output_price=0)
        cheaper = replace(quote, message=replace(quote.message, terms=(terms,)))
        response = await stand.submit(client, stand.ask(cheaper))
    assert (response.status_code, fault(response).code) == (401, "bad_signature")


async def test_request_and_voucher_by_different_keys_are_refused(stand: Stand) -> None:
    def other_key(asked: Asked) -> Asked:
        signed = Key.generate().signed(DOMAIN, asked.request.message)
        asked.call.request.CopyFrom(codec.signed_to_pb(signed))
        return asked

    status, said = await refusal(stand, other_key)
    assert (status, said.code) == (401, "bad_signature")


async def test_job_without_a_capsule_for_each_worker_is_refused(stand: Stand) -> None:
    def bare(asked: Asked) -> Asked:
        del asked.call.capsules[:]
        return asked

    status, said = await refusal(stand, bare)
    assert (status, said.code) == (400, "malformed")


async def test_same_request_again_is_acknowledged_alike_and_other_content_is_a_conflict(stand: Stand) -> None:
    async with stand.running() as client:
        asked = stand.ask(await stand.quote(client))
        first = await stand.submit(client, asked)
        assert first.status_code == 200
        assert (await stand.submit(client, asked)).content == first.content
        asked.call.prompt = asked.call.prompt[:-1] + b"\x00"
        other = await stand.submit(client, asked)
        assert (other.status_code, fault(other).code) == (409, "conflicting_job")
        assert await stand.broker.backlog(asked.quote.message.group) == 1


async def test_payment_of_a_job_that_was_refused_comes_back_as_credit(stand: Stand) -> None:
    async with stand.running() as client:
        asked = stand.ask(await stand.quote(client))
        stand.chain.time = NOW + 120
        assert fault(await stand.submit(client, asked)).code == "clock"
        assert (await stand.send(client, asked.payment)).status_code == 200
        leaf = ReceiptLeaf(kind=ABORTED, hash=asked.name, hop_amount=0, windows_paid=0)
        response = await stand.send(client, stand.payer.channel(stand.me).end_job(asked.name, leaf))
        assert response.status_code == 200
        credit = signed_pb2.Acknowledgement.FromString(response.content).credit
        assert codec.amount_from(credit) == 40


async def test_voucher_that_skips_another_requests_payment_is_stale(stand: Stand) -> None:
    async with stand.running() as client:
        asked = await stand.submitted(client)
        stand.ask(asked.quote)  # paid for, never sent
        response = await stand.pay(client, asked, 16)
    assert (response.status_code, fault(response).code) == (409, "stale_voucher")


async def test_voucher_of_another_key_is_refused(stand: Stand) -> None:
    async with stand.running() as client:
        asked = await stand.submitted(client)
        payment = stand.payer.channel(stand.me).pay(asked.name, 100, 8)
        other = Key.generate()
        voucher = other.signed(DOMAIN, payment.voucher.message)
        forged = replace(payment, voucher=voucher, pay=other.signed(DOMAIN, payment.pay.message))
        response = await stand.send(client, forged)
    assert (response.status_code, fault(response).code) == (401, "bad_signature")


async def test_events_for_a_stranger_or_an_expired_resume_are_refused(stand: Stand) -> None:
    async with stand.running() as client:
        asked = await stand.submitted(client)
        path = f"/v1/jobs/{to_hex(asked.name)}/events"
        mine = stand.resume(asked)
        stand.session, kept = Key.generate(), stand.session
        response = await client.post(path, content=stand.resume(asked))
        assert (response.status_code, fault(response).code) == (401, "bad_signature")
        stand.session = kept
        stand.now += 631
        response = await client.post(path, content=mine)
        assert (response.status_code, fault(response).code) == (400, "bad_request")
        assert "clock" in fault(response).text
        response = await client.post(f"/v1/jobs/{to_hex(Hash(bytes(32)))}/events", content=mine)
        assert (response.status_code, fault(response).code) == (404, "unknown_job")


async def test_channel_state_returns_last_voucher_and_ack(stand: Stand) -> None:
    call = gateway_pb2.ChannelStateCall(payer=stand.payer.payer, signer=stand.payer.signer).SerializeToString()
    async with stand.running() as client:
        empty = await client.post("/v1/channels/state", content=call)
        assert gateway_pb2.ChannelState.FromString(empty.content) == gateway_pb2.ChannelState()
        asked = await stand.submitted(client)
        reply = await client.post("/v1/channels/state", content=call)
    state = gateway_pb2.ChannelState.FromString(reply.content)
    assert state.voucher == codec.signed_to_pb(asked.payment.voucher)
    assert state.ack.ack.message.voucher == asked.payment.voucher.struct_hash()


async def test_manifest_and_files_are_served_under_their_hashes(stand: Stand) -> None:
    manifest = stand.swarm.manifest
    async with stand.running() as client:
        got = await client.get(f"/v1/manifests/{to_hex(manifest.model_id)}")
        assert got.content == manifest.to_json()
        assert (await client.get(f"/v1/files/{to_hex(manifest.tokenizer)}")).content == tokenizer_json()
        assert (await client.get(f"/v1/files/{to_hex(manifest.chat_template)}")).content == TEMPLATE.encode()
        for path in ("manifests", "files"):
            response = await client.get(f"/v1/{path}/{to_hex(bytes(32))}")
            assert (response.status_code, fault(response).code) == (404, "unknown_file")


async def test_file_changed_on_disk_is_not_served(stand: Stand) -> None:
    manifest = stand.swarm.manifest
    async with stand.running() as client:
        assert (await client.get(f"/v1/files/{to_hex(manifest.tokenizer)}")).status_code == 200
        path = stand.folder / "models" / to_hex(manifest.model_id) / "tokenizer.json"
        path.write_bytes(b"{}")
        assert (await client.get(f"/v1/files/{to_hex(manifest.tokenizer)}")).status_code == 404


async def test_models_lists_what_live_workers_offer(stand: Stand) -> None:
    async with stand.running() as client:
        listing = gateway_pb2.ModelListing.FromString((await client.get("/v1/models")).content)
    [served] = listing.models
    assert (served.name, served.model, served.max_input) == ("tiny", stand.swarm.manifest.model_id, 1_024)


async def test_body_above_the_limit_is_refused_before_it_is_read(stand: Stand) -> None:
    async with stand.running() as client:
        response = await client.post("/v1/jobs", content=bytes(900 * 1024 + 1))
        assert (response.status_code, fault(response).code) == (413, "too_large")

        async def endless():
            for _ in range(10):
                yield bytes(100 * 1024)

        response = await client.post("/v1/vouchers", content=endless())
        assert (response.status_code, fault(response).code) == (413, "too_large")


async def test_address_that_calls_too_often_is_told_to_wait_and_may_come_back(stand: Stand) -> None:
    async with stand.running() as client:
        codes = [(await client.get("/v1/models")).status_code for _ in range(1_001)]
        assert codes[:1_000] == [200] * 1_000
        refused = await client.get("/v1/models")
        assert (refused.status_code, fault(refused).code, fault(refused).retry) == (429, "too_many_calls", True)
        stand.now += 2
        assert (await client.get("/v1/models")).status_code == 200


async def test_unknown_path_answers_with_a_fault(stand: Stand) -> None:
    async with stand.running() as client:
        for response in (await client.get("/v1/nothing"), await client.get("/v1/jobs")):
            assert response.status_code in {404, 405}
            assert fault(response).code == "bad_request"
        index = await client.get(f"/v1/receipts/{to_hex(bytes(32))}/x")
        assert (index.status_code, fault(index).code) == (400, "bad_request")


async def test_health_and_metrics_answer(stand: Stand) -> None:
    async with stand.running() as client:
        assert (await client.get("/health")).json()["status"] == "ok"
        await stand.quote(client)
        assert "plait_gateway_quotes_total 1.0" in (await client.get("/metrics")).text
        await stand.broker.close()
        assert (await client.get("/health")).status_code == 503


async def test_quote_passes_the_payers_own_check(stand: Stand) -> None:
    async with stand.running() as client:
        quote = await stand.quote(client)
    await check_quote(
        DOMAIN,
        stand.swarm.directory,
        quote,
        [stand.prekey],
        gateway=stand.me,
        model=stand.swarm.manifest.model_id,
        now=NOW,
    )
