"""A disk that fills up under a gateway that runs: what cannot be kept is refused, and nothing of it is taken."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.node.disks import SmallDisk, small_disk
from tests.node.gateway.stand import Stand, fault
from tests.node.gateway.test_takeover import finish

from plait.ledger import JournalFullError
from plait_node.gateway.store import JobStore

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk") as made:
        yield made


def on(disk: SmallDisk, folder: Path, *names: str) -> None:
    """Put files of a gateway on the small disk."""
    for name in names:
        (folder / name).symlink_to(disk.path / name)


async def kinds(stand: Stand) -> list[str]:
    channel = stand.payer.channel(stand.me).id
    return [row.record.kind for row in await stand.broker.shared.rows(stand.me, channel, after=0, most=100)]


async def test_job_that_cannot_be_kept_is_refused_unpaid_and_taken_once_there_is_room(
    tmp_path: Path, disk: SmallDisk
) -> None:
    on(disk, tmp_path, "gateway.sqlite")
    stand = Stand(tmp_path)
    async with stand.running() as client:
        running = await stand.submitted(client)
        asked = stand.ask(await stand.quote(client))
        disk.fill()
        for _ in range(2):
            refused = await stand.submit(client, asked)
            assert (refused.status_code, fault(refused).code) == (503, "journal_full")
            assert (fault(refused).retry, fault(refused).moved) == (True, False)
            assert int(refused.headers["Retry-After"]) >= 1
        state = stand.book.state(stand.payer.payer, stand.payer.signer)
        assert state is not None
        assert state.request == running.name
        assert await kinds(stand) == ["pay"]
        assert await stand.broker.backlog(asked.quote.message.group) == 1
        assert (await client.get("/health")).status_code == 200

        disk.make_room()
        for _ in range(2):
            assert (await stand.submit(client, asked)).status_code == 200
        assert await stand.broker.backlog(asked.quote.message.group) == 2


@pytest.mark.parametrize("upto", [3, 8])
async def test_answer_that_runs_ends_with_a_fault_that_passes_and_is_resumed_once_there_is_room(
    tmp_path: Path, disk: SmallDisk, upto: int
) -> None:
    on(disk, tmp_path, "gateway.sqlite")
    stand = Stand(tmp_path)
    async with stand.running() as client:
        asked = await stand.submitted(client)
        events = await stand.work(asked, upto=upto)
        await stand.relayed(asked, "chunk")
        disk.fill()
        await finish(stand, asked, events, upto)
        seen = await stand.follow(client, asked)
        assert (seen[-1].kind, seen[-1].event.error.code, seen[-1].event.error.retry) == ("error", "journal_full", True)

        disk.make_room()
        again = await stand.follow(client, asked)
        assert [each.kind for each in again] == [event.kind for event in events]


async def test_verdict_that_cannot_be_kept_is_given_once_there_is_room(tmp_path: Path, disk: SmallDisk) -> None:
    on(disk, tmp_path, "gateway.sqlite")
    stand = Stand(tmp_path, patience_s=0.1)
    async with stand.running() as client:
        asked = await stand.submitted(client)
        disk.fill()
        await stand.publish(asked, next(stand.answer(asked).events((), 0)), "1.0")
        assert (await stand.follow(client, asked))[-1].event.error.code == "journal_full"
        disk.make_room()
        assert (await stand.follow(client, asked))[-1].event.error.code == "answer_withheld"


async def test_voucher_is_logged_once_though_the_journal_had_no_room_for_it(tmp_path: Path, disk: SmallDisk) -> None:
    on(disk, tmp_path, "gateway-journal.sqlite")
    stand = Stand(tmp_path)
    async with stand.running() as client:
        asked = await stand.submitted(client)
        disk.fill()
        channel, amount = stand.payer.channel(stand.me), asked.payment.pay.message.amount
        payment = channel.pay(asked.name, amount + 1, 1)
        for _ in range(3):
            refused = await stand.send(client, payment)
            assert (refused.status_code, fault(refused).code) == (503, "journal_full")
        disk.make_room()
        for _ in range(2):
            assert (await stand.send(client, payment)).status_code == 200
        assert await kinds(stand) == ["pay", "pay"]
        assert stand.book.owed(asked.name).amount == amount + 1


async def test_gateway_does_not_start_on_a_full_disk_and_says_why(tmp_path: Path, disk: SmallDisk) -> None:
    on(disk, tmp_path, "gateway.sqlite")
    JobStore(tmp_path / "gateway.sqlite").close()
    disk.fill()
    with pytest.raises(JournalFullError, match="make room"):
        JobStore(tmp_path / "gateway.sqlite")
    disk.make_room()
    JobStore(tmp_path / "gateway.sqlite").close()
