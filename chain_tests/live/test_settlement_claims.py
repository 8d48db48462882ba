"""The claimer on a real chain: one claim for each job, through crashes, outages, exits and reorganisations."""

from __future__ import annotations

import asyncio
import logging
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from chain_tests.anvil import switch
from chain_tests.channel_cases import DEPOSIT, Trade, eventually, leaf, request

from plait.chain import ChainReader, ChainWriter, Patience, artifact, read_logs
from plait.ledger import Journal
from plait.protocol.ids import to_hex
from plait_node.settlement import Claimer

QUICK = Patience(deadline_s=60.0, bump_after_s=0.4, poll_s=0.02, slowest_poll_s=0.1)


@asynccontextmanager
async def running(claimer: Claimer) -> AsyncGenerator[None]:
    task = asyncio.create_task(claimer.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def claimed_events(trade: Trade) -> list[int]:
    """Return the cumulative of every claim on chain."""
    event = artifact("Channels").event("VoucherClaimed")
    head = await trade.reader.block()
    where = [trade.chain.deployment.address("Channels")]
    found: list[int] = []
    async for part in read_logs(
        trade.reader.rpc, addresses=where, first=trade.chain.deployment.block, last=head.number, topics=[[event.topic]]
    ):
        found += [event.decode(log.topics, log.data)["cumulative"] for log in part.logs]
    return found


async def test_three_jobs_give_three_claim_transactions(trade: Trade) -> None:
    claimer = Claimer(trade.payee_journal, trade.node, trade.payee)
    async with running(claimer):
        for number in (1, 2, 3):
            await trade.job(number, 1_000 * number)
            claimer.notify()
        await eventually(lambda: len(claimer.claims()) == 3 and claimer.waiting() == 0)

    claims = claimer.claims()
    assert [each.status for each in claims] == ["done"] * 3
    assert [(each.cumulative, each.jobs) for each in claims] == [(1_000, 1), (3_000, 2), (6_000, 3)]
    assert len({each.tx for each in claims}) == 3
    assert await claimed_events(trade) == [1_000, 3_000, 6_000]
    assert all(each.gas_used > 0 and each.fee_wei > 0 and each.block for each in claims)
    assert (await trade.reader.earnings(trade.payee)).earned == 6_000


async def test_three_jobs_before_the_claimer_starts_are_not_merged(trade: Trade) -> None:
    for number in (1, 2, 3):
        await trade.job(number)

    await Claimer(trade.payee_journal, trade.node, trade.payee).settle()

    assert await claimed_events(trade) == [1_000, 2_000, 3_000]


async def test_running_job_is_not_claimed_until_it_ends(trade: Trade) -> None:
    trade.book.accept(trade.channel.pay(request(1), 400, 0), deposit=DEPOSIT, claimed=0, exit_at=0, now=time.time())
    claimer = Claimer(trade.payee_journal, trade.node, trade.payee)
    await claimer.settle()
    assert claimer.claims() == []

    await claimer.claim_now()
    await claimer.claim_now()

    assert await claimed_events(trade) == [400]


async def test_manual_policy_claims_only_when_told(trade: Trade) -> None:
    await trade.job(1)
    claimer = Claimer(trade.payee_journal, trade.node, trade.payee, policy="manual")
    await claimer.settle()
    assert await claimed_events(trade) == []

    await claimer.claim_now()

    assert await claimed_events(trade) == [1_000]


async def test_threshold_policy_claims_many_jobs_at_once(trade: Trade) -> None:
    claimer = Claimer(trade.payee_journal, trade.node, trade.payee, policy="threshold", threshold=2_500)
    for number in (1, 2):
        await trade.job(number)
        await claimer.settle()
    assert await claimed_events(trade) == []

    await trade.job(3)
    await claimer.settle()
    await claimer.settle()
    await trade.job(4)
    await claimer.settle()

    assert await claimed_events(trade) == [3_000]
    assert [(each.status, each.jobs) for each in claimer.claims()] == [("done", 3)]


async def test_threshold_policy_claims_less_when_the_payer_leaves(trade: Trade) -> None:
    claimer = Claimer(trade.payee_journal, trade.node, trade.payee, policy="threshold", threshold=1_000_000)
    await trade.job(1)
    await trade.payer.exit(trade.payee, trade.session.address)

    await claimer.watch()

    assert await claimed_events(trade) == [1_000]


async def test_threshold_policy_given_up_claims_the_rest_once(trade: Trade) -> None:
    first = Claimer(trade.payee_journal, trade.node, trade.payee, policy="threshold", threshold=2_000)
    for number in (1, 2, 3):
        await trade.job(number)
        await first.settle()

    await Claimer(trade.payee_journal, trade.node, trade.payee).settle()

    assert await claimed_events(trade) == [2_000, 3_000]


async def test_voucher_somebody_else_claimed_is_moot(trade: Trade) -> None:
    await trade.job(1)
    await trade.payer.claim(trade.payee, [trade.book.rounds()[0].row()])
    claimer = Claimer(trade.payee_journal, trade.node, trade.payee)

    await claimer.settle()

    (claim,) = claimer.claims()
    assert (claim.status, claim.tx) == ("moot", None)
    assert await claimed_events(trade) == [1_000]


async def test_skipped_row_is_a_warning_with_its_reason(trade: Trade, caplog: pytest.LogCaptureFixture) -> None:
    trade.book.accept(
        trade.channel.pay(request(1), DEPOSIT + 1, 0), deposit=2 * DEPOSIT, claimed=0, exit_at=0, now=time.time()
    )
    payment = trade.channel.end_job(request(1), leaf(1, DEPOSIT + 1))
    trade.book.accept(payment, deposit=2 * DEPOSIT, claimed=0, exit_at=0, now=time.time())
    claimer = Claimer(trade.payee_journal, trade.node, trade.payee)

    with caplog.at_level(logging.WARNING):
        await claimer.settle()

    (claim,) = claimer.claims()
    assert claim.status == "skipped"
    assert claim.note == f"the voucher is for {DEPOSIT + 1} base units, the channel holds {DEPOSIT}"
    assert claim.note in caplog.text


async def test_leaving_payer_is_claimed_from_before_the_exit_ends(trade: Trade) -> None:
    await trade.job(1)
    trade.book.accept(trade.channel.pay(request(2), 300, 0), deposit=DEPOSIT, claimed=0, exit_at=0, now=time.time())
    claimer = Claimer(trade.payee_journal, trade.node, trade.payee, policy="manual", watch_s=0.05)
    async with running(claimer):
        await asyncio.sleep(0.3)
        assert claimer.claims() == []
        await trade.payer.exit(trade.payee, trade.session.address)
        await eventually(lambda: any(each.status == "done" for each in claimer.claims()))

    assert await claimed_events(trade) == [1_300]


async def test_endpoint_down_then_up_loses_no_claim(trade: Trade) -> None:
    async with (
        switch(trade.chain.url) as (url, turn),
        await ChainReader.connect(url, trade.chain.deployment, timeout_s=2.0) as reader,
    ):
        writer = ChainWriter(reader, trade.node.key, patience=QUICK)
        claimer = Claimer(trade.payee_journal, writer, trade.payee, watch_s=0.1)
        async with running(claimer):
            turn(False)
            await trade.job(1)
            await trade.job(2)
            claimer.notify()
            await asyncio.sleep(0.7)
            assert await claimed_events(trade) == []
            turn(True)
            await eventually(lambda: claimer.waiting() == 0)

    assert await claimed_events(trade) == [1_000, 2_000]


async def test_stuck_claim_is_sent_again_with_a_higher_fee(trade: Trade) -> None:
    await trade.job(1)
    trade.chain.anvil.automine(on=False)
    writer = ChainWriter(trade.reader, trade.node.key, patience=QUICK)
    claimer = Claimer(trade.payee_journal, writer, trade.payee)
    sweep = asyncio.create_task(claimer.settle())

    await eventually(lambda: sent_variants(trade) >= 2)
    trade.chain.anvil.mine()
    await sweep

    (claim,) = claimer.claims()
    assert claim.status == "done"
    assert await claimed_events(trade) == [1_000]
    hashes = [row[0] for row in trade.payee_journal.all("SELECT hash FROM variants ORDER BY seq")]
    assert claim.tx in hashes[1:]


async def test_claim_that_a_reorganisation_undid_is_sent_again(trade: Trade) -> None:
    await trade.job(1)
    snapshot = trade.chain.anvil.snapshot()
    claimer = Claimer(trade.payee_journal, trade.node, trade.payee)
    await claimer.settle()
    assert await claimed_events(trade) == [1_000]
    trade.chain.anvil.revert(snapshot)
    trade.chain.anvil.mine(2)
    assert await claimed_events(trade) == []

    await claimer.watch()
    assert [each.status for each in claimer.claims()] == ["lost"]
    await claimer.settle()

    assert await claimed_events(trade) == [1_000]
    assert [each.status for each in claimer.claims()] == ["done"]


async def test_claims_of_a_channel_that_another_gateway_owns_wait_until_it_comes_here(trade: Trade) -> None:
    ours = False
    claimer = Claimer(trade.payee_journal, trade.node, trade.payee)
    claimer.owns = lambda channel: ours and channel == trade.channel.id
    await trade.job(1)
    await trade.job(2)
    await claimer.settle()
    await claimer.claim_now()
    await claimer.watch()
    assert (await claimed_events(trade), claimer.waiting()) == ([], 2)

    ours = True
    await trade.job(3)
    await claimer.settle()

    assert await claimed_events(trade) == [1_000, 2_000, 3_000]
    assert claimer.waiting() == 0


async def test_rounds_that_another_gateway_claimed_are_passed_over_but_for_the_last(trade: Trade) -> None:
    for number in (1, 2, 3):
        await trade.job(number)
    rounds = trade.book.rounds()
    await trade.payer.claim(trade.payee, [rounds[2].row()])
    claimer = Claimer(trade.payee_journal, trade.node, trade.payee)

    await claimer.settle()

    assert [(each.cumulative, each.status) for each in claimer.claims()] == [(3_000, "moot")]
    assert await claimed_events(trade) == [3_000]
    await trade.job(4)
    await claimer.settle()
    assert await claimed_events(trade) == [3_000, 4_000]


CLAIM_AND_DIE = """
import asyncio, os, signal, sys
from plait.chain import ChainReader, ChainWriter, Deployment, Patience
from plait.chain.rpc import Rpc
from plait.ledger import Journal, load_key
from plait_node.settlement import Claimer

when, url, deployment, journal, key, me = sys.argv[1:]
send_raw = Rpc.send_raw

async def dying(self, raw):
    if when == "after":
        await send_raw(self, raw)
    os.kill(os.getpid(), signal.SIGKILL)

Rpc.send_raw = dying

async def main():
    async with await ChainReader.connect(url, Deployment.load(deployment)) as reader:
        writer = ChainWriter(reader, load_key(key))
        await Claimer(Journal(journal), writer, bytes.fromhex(me)).settle()

asyncio.run(main())
"""


def variants(journal: Journal) -> int:
    row = journal.one("SELECT COUNT(*) FROM variants")
    return int(row[0]) if row else 0


def sent_variants(trade: Trade) -> int:
    """Return how many variants were signed, the last of which the endpoint knows."""
    rows = trade.payee_journal.all("SELECT hash FROM variants ORDER BY seq")
    known = rows and trade.chain.anvil.rpc("eth_getTransactionByHash", to_hex(rows[-1][0]))
    return len(rows) if known else 0


async def die_while_claiming(trade: Trade, folder: Path, when: str) -> None:
    trade.chain.deployment.save(folder / "deployment.json")
    if not (folder / "node.key").exists():
        (folder / "node.key").write_text(trade.node.key.secret_hex())
        (folder / "node.key").chmod(0o600)
    files = (folder / "deployment.json", folder / "payee.db", folder / "node.key")
    command = [sys.executable, "-c", CLAIM_AND_DIE, when, trade.chain.url, *map(str, files), trade.payee.hex()]
    ended = await asyncio.to_thread(subprocess.run, command, check=False, timeout=110)
    assert ended.returncode == -signal.SIGKILL


@pytest.mark.parametrize("when", ["before", "after"])
async def test_killed_between_outbox_and_block_claims_once(trade: Trade, tmp_path: Path, when: str) -> None:
    await trade.job(1)
    await trade.job(2)
    trade.chain.anvil.automine(on=False)
    await die_while_claiming(trade, tmp_path, when)
    assert variants(trade.payee_journal) == 1
    trade.chain.anvil.automine(on=True)
    if when == "after":
        trade.chain.anvil.mine()

    claimer = Claimer(trade.payee_journal, trade.node, trade.payee)
    await claimer.settle()
    await claimer.settle()

    assert await claimed_events(trade) == [1_000, 2_000]
    assert variants(trade.payee_journal) == 2
    assert [each.status for each in claimer.claims()] == ["done", "done"]


async def test_killed_before_sending_and_nonce_used_since_claims_once(trade: Trade, tmp_path: Path) -> None:
    await trade.job(1)
    await die_while_claiming(trade, tmp_path, "before")
    await trade.node.set_endpoint("http://127.0.0.1:2")

    claimer = Claimer(trade.payee_journal, trade.node, trade.payee)
    await claimer.settle()

    assert await claimed_events(trade) == [1_000]
    assert variants(trade.payee_journal) == 2
    assert [each.status for each in claimer.claims()] == ["done"]
