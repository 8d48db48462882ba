from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import pytest
from tests.sdk.swarm import DOMAIN, END, NOW, Answer, Event, Swarm, feed, tokenizer

from plait.protocol.checks import check_quote, check_request, check_route
from plait.protocol.errors import DeadlineError, PriceTooLowError, PromptTooLongError, VerificationError
from plait.protocol.ids import Hash
from plait.protocol.messages import Finish, Message, Stage
from plait.protocol.sealing import ContentKey
from plait.protocol.typed import Signed
from plait.protocol.verify import AnswerVerifier

CHAT = [{"role": "user", "content": "Why is the sky blue? Say it in two sentences."}]
TEXT = "Because of Rayleigh scattering: short waves scatter more, é."


@dataclass(slots=True, kw_only=True)
class Case:
    swarm: Swarm
    answer: Answer
    verifier: AnswerVerifier

    @property
    def output(self) -> list[int]:
        return [*tokenizer().encode(TEXT), END]


def make_case(stop: tuple[str, ...] = (), max_tokens: int = 100) -> Case:
    swarm, key, words = Swarm(), ContentKey.generate(), tokenizer()
    prompt = words.render(CHAT)
    quote = swarm.quote(swarm.prekey())
    request = swarm.request(quote.message, key, prompt, stop=stop, max_tokens=max_tokens)
    check_request(quote.message, request, now=NOW)
    verifier = AnswerVerifier(
        domain=DOMAIN,
        directory=swarm.directory,
        content_key=key,
        quote=quote.message,
        request=request,
        prompt_ids=prompt,
        stop=stop,
        manifest=swarm.manifest,
        tokenizer=words,
    )
    return Case(swarm=swarm, answer=swarm.answer(request, key, prompt), verifier=verifier)


async def test_verifier_honest_answer_reports_l0() -> None:
    case = make_case()
    for event in case.answer.events(case.output):
        await feed(case.verifier, event)
    case.verifier.check_text(TEXT)
    report = case.verifier.report()
    steps = len(case.answer.prompt) + len(case.output) - 1
    windows = len(case.answer.cut.windows(steps))
    assert report.level == "L0"
    assert report.statistic == {
        "tokens": len(case.output),
        "windows": windows,
        "leaves": 3 * windows,
        "signatures": 3 * windows + report.statistic["signatures"] - 3 * windows,
        "attempts": 1,
    }
    assert case.verifier.verified == len(case.output)
    assert case.verifier.due() == case.verifier.receipt.message.price > 0
    assert case.verifier.note.reason == "nothing is shared"


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 33])
async def test_verifier_every_length_passes(count: int) -> None:
    case = make_case(max_tokens=count)
    for event in case.answer.events([7] * count, Finish.LENGTH, chunk=3):
        await feed(case.verifier, event)
    assert case.verifier.report().statistic["tokens"] == count


def flipped(data: bytes, bit: int) -> bytes:
    at = bit % (8 * len(data))
    return data[: at // 8] + bytes([data[at // 8] ^ 1 << at % 8]) + data[at // 8 + 1 :]


def changes(signed: Signed[Message]) -> list[Signed[Message]]:
    """Return the message with one bit changed in each of its fields, and in its signature."""
    found: list[Signed[Message]] = [
        replace(signed, signature=flipped(signed.signature, bit)) for bit in (0, 200, 256, 511)
    ]
    for each in fields(signed.message):
        value = getattr(signed.message, each.name)
        if isinstance(value, bytes):
            found.append(replace(signed, message=replace(signed.message, **{each.name: flipped(value, 77)})))
        elif isinstance(value, int):
            found.append(replace(signed, message=replace(signed.message, **{each.name: value ^ 1})))
        elif value:
            items = (altered_item(value[0]), *value[1:])
            found.append(replace(signed, message=replace(signed.message, **{each.name: items})))
    return found


def altered_item(item: bytes | Message) -> bytes | Message:
    if isinstance(item, bytes):
        return flipped(item, 3)
    name, value = next((each.name, getattr(item, each.name)) for each in reversed(fields(item)))
    return replace(item, **{name: value ^ 1})


def altered(event: Event) -> list[Event]:
    body = event.body
    if event.kind in ("job", "receipt"):
        return [replace(event, body=each) for each in changes(body)]
    if event.kind == "chunk":
        job, sealed = body
        return [replace(event, body=(job, flipped(sealed, 9))), replace(event, body=(flipped(job, 1), sealed))]
    progress, leaves = body
    found = [replace(event, body=(each, leaves)) for each in changes(progress)]
    for at, leaf in enumerate(leaves):
        found += [replace(event, body=(progress, [*leaves[:at], each, *leaves[at + 1 :]])) for each in changes(leaf)]
    found.append(replace(event, body=(progress, leaves[:-1])))
    found.append(replace(event, body=(progress, leaves[::-1])))
    return found


@pytest.mark.parametrize("kind", ["job", "chunk", "progress", "receipt"])
async def test_verifier_one_bit_changed_refuses_for_good(kind: str) -> None:
    tried = 0
    case = make_case()
    events = list(case.answer.events([*case.output[:20], END]))
    at = next(index for index, event in enumerate(events) if event.kind == kind)
    for wrong in altered(events[at]):
        case.verifier = renewed(case)
        for event in events[:at]:
            await feed(case.verifier, event)
        paid = case.verifier.due()
        with pytest.raises(VerificationError):
            await feed(case.verifier, wrong)
        with pytest.raises(VerificationError):
            await feed(case.verifier, events[at])
        with pytest.raises(VerificationError):
            case.verifier.report()
        assert case.verifier.due() == paid
        tried += 1
    assert tried >= 2


def renewed(case: Case) -> AnswerVerifier:
    old = case.verifier
    return AnswerVerifier(
        domain=DOMAIN,
        directory=case.swarm.directory,
        content_key=case.answer.key,
        quote=old._quote,
        request=case.answer.request,
        prompt_ids=case.answer.prompt,
        stop=(),
        manifest=case.swarm.manifest,
        tokenizer=tokenizer(),
    )


async def test_verifier_slipped_in_token_refuses_input_root() -> None:
    """The worker drives the stages with one word and delivers another."""
    case = make_case()
    await feed(case.verifier, Event(kind="job", body=case.answer.job()))
    case.verifier.accept_chunk(case.answer.job_hash, case.answer.chunk([65] * 17))
    case.answer.ids[3] = 66
    with pytest.raises(VerificationError, match="did not compute from these tokens"):
        await case.verifier.accept_progress(*case.answer.progress(len(case.answer.prompt) + 16))


async def test_verifier_leaf_by_foreign_node_refuses() -> None:
    case = make_case()
    await feed(case.verifier, Event(kind="job", body=case.answer.job()))
    case.answer.nodes[1] = case.swarm.node()
    case.verifier.accept_chunk(case.answer.job_hash, case.answer.chunk([65]))
    with pytest.raises(VerificationError, match="not signed by a service key"):
        await case.verifier.accept_progress(*case.answer.progress(len(case.answer.prompt)))


async def test_verifier_key_revoked_too_early_refuses() -> None:
    case = make_case()
    known = case.swarm.directory.keys[case.swarm.worker.service.address]
    known.revoked_at = case.answer.request.deadline + 1_800 - 5_400 - 1
    with pytest.raises(VerificationError, match="does not count"):
        await feed(case.verifier, Event(kind="job", body=case.answer.job()))


async def test_verifier_key_revoked_within_grace_accepts() -> None:
    case = make_case()
    known = case.swarm.directory.keys[case.swarm.worker.service.address]
    known.revoked_at = case.answer.request.deadline + 1_800 - 5_400
    await feed(case.verifier, Event(kind="job", body=case.answer.job()))


async def test_verifier_jailed_stage_refuses_job() -> None:
    case = make_case()
    case.swarm.directory.jailed.add(case.swarm.stages[2].owner)
    with pytest.raises(VerificationError, match="jailed"):
        await feed(case.verifier, Event(kind="job", body=case.answer.job()))


@pytest.mark.parametrize(
    "change",
    [
        lambda job: {"attempt": 0},
        lambda job: {"start": 1},
        lambda job: {"row": 16},
        lambda job: {"profile": Hash(b"\1" * 32)},
        lambda job: {"route": job.route[1:]},
        lambda job: {"route": (*job.route, job.route[-1])},
        lambda job: {"route": ()},
        lambda job: {"closes_at": job.closes_at + 1},
    ],
)
async def test_verifier_wrong_second_job_refuses(change: Callable[[object], dict[str, object]]) -> None:
    case = make_case()
    await feed(case.verifier, Event(kind="job", body=case.answer.job()))
    second = case.answer.job()
    wrong = case.swarm.worker.service.signed(DOMAIN, replace(second.message, **change(second.message)))
    with pytest.raises(VerificationError):
        await case.verifier.accept_job(wrong)


async def test_verifier_second_attempt_pays_both_segments() -> None:
    case = make_case()
    answer, verifier, prompt = case.answer, case.verifier, len(case.answer.prompt)
    await verifier.accept_job(answer.job())
    verifier.accept_chunk(answer.job_hash, answer.chunk([65] * 20))
    await verifier.accept_progress(*answer.progress(prompt + 16))
    answer.segment()
    await verifier.accept_job(answer.job())
    verifier.accept_chunk(answer.job_hash, answer.chunk([66, 67, END]))
    await verifier.accept_progress(*answer.progress(prompt + 22))
    answer.segment()
    verifier.accept_chunk(answer.job_hash, answer.note())
    await verifier.accept_receipt(answer.receipt(Finish.STOP))
    assert verifier.receipt.message.price == 2 * prompt + 8 * (17 + 3)
    assert verifier.receipt.message.output_tokens == 23


async def test_verifier_old_jobs_chunk_after_new_job_refuses() -> None:
    case = make_case()
    await case.verifier.accept_job(case.answer.job())
    old, sealer = case.answer.job_hash, case.answer.sealer
    await case.verifier.accept_job(case.answer.job())
    with pytest.raises(VerificationError, match="not to the latest"):
        case.verifier.accept_chunk(old, sealer.seal([65]))


@pytest.mark.parametrize(
    ("output", "finish", "stop", "right"),
    [
        ([65, END], Finish.STOP, (), True),
        ([65, 66], Finish.STOP, (), False),
        ([65, 66], Finish.LENGTH, (), False),
        ([65] * 100, Finish.LENGTH, (), True),
        ([65, 66], Finish.STOP_STRING, ("bc",), True),
        ([65, 66], Finish.STOP_STRING, ("zz",), False),
        ([65, 66], Finish.STOP_STRING, (), False),
        ([65, 66], Finish.CANCELLED, (), True),
        ([65, 66], Finish.FAILED, (), True),
        ([65, 66], 5, (), False),
    ],
)
async def test_verifier_finish_matches_tokens(
    output: list[int], finish: int, stop: tuple[str, ...], right: bool
) -> None:
    case = make_case(stop=stop)
    *events, receipt = case.answer.events(output, finish)
    for event in events:
        await feed(case.verifier, event)
    if right:
        await feed(case.verifier, receipt)
    else:
        with pytest.raises(VerificationError, match="finish"):
            await feed(case.verifier, receipt)


async def test_verifier_tokens_past_the_limits_refuse() -> None:
    for ids, limit in (([65, 66], 1), ([258], 10), ([END, 65], 10)):
        case = make_case(max_tokens=limit)
        await case.verifier.accept_job(case.answer.job())
        with pytest.raises(VerificationError, match="chunk"):
            case.verifier.accept_chunk(case.answer.job_hash, case.answer.chunk(ids))


async def test_verifier_other_choice_in_note_refuses() -> None:
    case = make_case()
    await case.verifier.accept_job(case.answer.job())
    case.answer.choice = replace(case.answer.choice, method="prefix-cache")
    with pytest.raises(VerificationError, match="choice"):
        case.verifier.accept_chunk(case.answer.job_hash, case.answer.note())


async def test_verifier_other_text_refuses() -> None:
    case = make_case()
    for event in case.answer.events(case.output):
        await feed(case.verifier, event)
    with pytest.raises(VerificationError, match="text"):
        case.verifier.check_text(TEXT + " ")


async def test_verifier_directory_down_then_fails_closed() -> None:
    case = make_case()
    case.swarm.directory.down = True
    job = case.answer.job()
    with pytest.raises(TimeoutError):
        await case.verifier.accept_job(job)
    case.swarm.directory.down = False
    with pytest.raises(VerificationError, match="interrupted"):
        await case.verifier.accept_job(job)


async def test_check_quote_honest_passes_and_altered_refuses() -> None:
    swarm = Swarm()
    prekey = swarm.prekey()
    quote = swarm.quote(prekey)

    async def check(quote: Signed[Message], prekeys: list[Signed[Message]], now: float = NOW) -> None:
        await check_quote(
            DOMAIN,
            swarm.directory,
            quote,
            prekeys,
            gateway=swarm.gateway.owner,
            model=swarm.manifest.model_id,
            now=now,
        )

    await check(quote, [prekey])
    for wrong in changes(quote):
        with pytest.raises(VerificationError):
            await check(wrong, [prekey])
    for wrong in changes(prekey):
        with pytest.raises(VerificationError):
            await check(quote, [wrong])
    for bad in (
        lambda: check(quote, []),
        lambda: check(quote, [prekey], NOW + 700),
        lambda: check(quote, [prekey], NOW - 100_000),
        lambda: check(swarm.quote(prekey, terms=()), [prekey]),
        lambda: check(swarm.quote(prekey, terms=(swarm.terms, swarm.terms)), [prekey]),
        lambda: check(swarm.quote(prekey, workers=()), [prekey]),
    ):
        with pytest.raises(VerificationError):
            await bad()
    swarm.directory.jailed.add(swarm.worker.owner)
    with pytest.raises(VerificationError, match="jailed"):
        await check(quote, [prekey])


def test_check_request_breaking_limits_refuses_with_advice() -> None:
    swarm, key = Swarm(), ContentKey.generate()
    quote = swarm.quote(swarm.prekey()).message
    request = swarm.request(quote, key, [1, 2, 3])
    check_request(quote, request, now=NOW)
    for change, error, advice in (
        ({"max_price": request.max_price - 1}, PriceTooLowError, "raise max_price"),
        ({"input_tokens": 1_025}, PromptTooLongError, "room for 1024"),
        ({"max_tokens": 513}, PromptTooLongError, "lower it"),
        ({"deadline": NOW - 31}, DeadlineError, "clock"),
        ({"deadline": NOW + 3_631}, DeadlineError, "clock"),
    ):
        with pytest.raises(error, match=advice):
            check_request(quote, replace(request, **change), now=NOW)


@pytest.mark.parametrize("borders", [[0, 10, 20], [0, 10, 31], [1, 30], [0, 10, 10, 30], [0, 0, 30], []])
def test_check_route_not_tiling_refuses(borders: list[int]) -> None:
    pairs = itertools.pairwise(borders)
    route = [Stage(node=b"\1" * 20, first=first, last=last, price=1) for first, last in pairs]
    with pytest.raises(VerificationError, match="route"):
        check_route(route, 30)
