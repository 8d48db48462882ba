"""Three jobs over the real thread: one claim for each job and payee, and on every hop what the protocol says."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections import Counter
from contextlib import closing
from math import ceil
from pathlib import Path

import pytest
from chain_tests.live.network import INPUT_PRICE, OUTPUT_PRICE, STAGE_PRICE, Claimed, LiveNetwork, talk

from plait.client.answers import ChatCompletion
from plait.ledger import Journal, PayeeBook
from plait.protocol.ids import address, hash32, to_hex
from plait.protocol.receipts import RECEIPT, ReceiptLeaf
from plait.protocol.tree import tree_root
from plait.protocol.windows import Cut
from plait_audit import audit

pytestmark = pytest.mark.timeout(900)

QUESTIONS = (("What is the capital of France?", 8), ("Name three rivers in Europe, please.", 17), ("Say hello.", 30))
STAGES = ("stage-ash", "stage-birch", "stage-cedar", "stage-spare")


def steps(answer: ChatCompletion) -> int:
    """Return how many steps the route computed: the last token has no row."""
    return answer.usage.prompt_tokens + answer.usage.completion_tokens - 1


def price(answer: ChatCompletion) -> int:
    usage = answer.usage
    return ceil(usage.prompt_tokens * INPUT_PRICE / 1e6) + ceil(usage.completion_tokens * OUTPUT_PRICE / 1e6)


def fee(answer: ChatCompletion, *, blocks: int) -> int:
    return ceil(steps(answer) * blocks * STAGE_PRICE / 1e6)


def windows(answer: ChatCompletion) -> int:
    return len(Cut(prompt_end=answer.usage.prompt_tokens).windows(steps(answer)))


def leaf(net: LiveNetwork, answer: ChatCompletion, amount: int) -> ReceiptLeaf:
    digest = answer.signed_receipt.digest(net.deployment.domain)
    return ReceiptLeaf(kind=RECEIPT, hash=digest, hop_amount=amount, windows_paid=windows(answer))


async def quiet(net: LiveNetwork, last: ChatCompletion, copies: Path) -> dict[str, list[Claimed]]:
    """Return the hops' claims once the last answer's are among them, and nothing of earlier tests comes any more."""
    before: dict[str, list[Claimed]] = {}
    digest = last.signed_receipt.digest(net.deployment.domain)
    served = {net.by_owner(stage.node).name for stage in last.job.route}
    for turn in itertools.count():
        now = {name: await net.claims(net.hop(name)) for name in STAGES}
        ended = {name: [each.hash for each in journalled(net, name, copies / f"{turn}-{name}")] for name in served}
        there = [digest in ended[name][: now[name][-1].jobs if now[name] else 0] for name in served]
        if now == before and all(there):
            return now
        before = now
        await asyncio.sleep(2.0)
    raise AssertionError


def journalled(net: LiveNetwork, stage: str, copy: Path) -> list[ReceiptLeaf]:
    """Return the ended jobs in a stage's journal, read from a copy: the node goes on writing."""
    copy.mkdir()
    file = net.nodes[stage].home / "journal.sqlite"
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(copy / file.name)) as target:
        source.backup(target)
    with Journal(copy / "journal.sqlite") as journal:
        return PayeeBook(journal, net.deployment.domain, net.owner(stage)).leaves(net.hop(stage))


async def test_three_jobs_are_claimed_one_by_one_with_the_protocol_s_amounts_on_every_hop(
    net: LiveNetwork, tmp_path: Path
) -> None:
    async with net.payer(tmp_path / "payer") as client:
        hi = await client.chat.completions.create(
            model="smollm2-135m", messages=talk("Hi."), max_tokens=1, temperature=0
        )
        before = await quiet(net, hi, tmp_path)
        answers = [
            await client.chat.completions.create(
                model="smollm2-135m", messages=talk(question), max_tokens=tokens, temperature=0
            )
            for question, tokens in QUESTIONS
        ]
        purse = await client.purse()
        payer = purse.channel(net.owner("gateway"))

        mine = (await net.settled(payer.id, count=4))[1:]
        assert len(mine) == 3
        assert len({claim.tx for claim in mine}) == 3
        first = payer.cumulative - sum(map(price, answers))
        for count, (claim, answer) in enumerate(zip(mine, answers, strict=True), 1):
            assert answer.receipt.price == price(answer) == answer.paid
            assert claim.cumulative == first + sum(map(price, answers[:count]))
            assert claim.jobs == 1 + count
            assert claim.root == payer.root_at(claim.jobs)
            status = await client.jobs.get(answer.id)
            assert (status.status, status.transaction) == ("claimed", to_hex(claim.tx))
            assert hash32(str(status.receipt)) == answer.signed_receipt.digest(net.deployment.domain)

    await check_hops(net, answers, before, tmp_path)
    async with net.reader() as reader:
        assert (await audit(reader)).findings == ()


async def check_hops(
    net: LiveNetwork, answers: list[ChatCompletion], before: dict[str, list[Claimed]], tmp_path: Path
) -> None:
    """Check the claims of each stage: one for each job that it served, of exactly its fee."""
    served = Counter(net.by_owner(stage.node).name for answer in answers for stage in answer.job.route)
    assert served["stage-ash"] == served["stage-cedar"] == 3
    assert served["stage-birch"] + served["stage-spare"] == 3
    for name, count in served.items():
        old = before[name]
        claims = await net.settled(net.hop(name), count=len(old) + count)
        fresh = claims[len(old) :]
        assert len({claim.tx for claim in fresh}) == len(fresh) == count
        expected = [
            leaf(net, answer, fee(answer, blocks=stage.last - stage.first))
            for answer in answers
            for stage in answer.job.route
            if address(stage.node) == net.owner(name)
        ]
        leaves = journalled(net, name, tmp_path / name)
        assert leaves[-count:] == expected
        start = old[-1].cumulative if old else 0
        for at, claim in enumerate(fresh, 1):
            assert claim.cumulative == start + sum(each.hop_amount for each in expected[:at])
            assert claim.root == tree_root(each.encode() for each in leaves[: claim.jobs])
            assert claim.jobs == len(leaves) - count + at
