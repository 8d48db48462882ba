"""Gateways that race, freeze and lose answers at random: of vouchers that contradict each other one is accepted."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.sdk.ledger_cases import DEPOSIT, DOMAIN, NOW, PAYEE, SIGNER

from plait.ledger import Accepted, Journal, PaymentError, SharedBook
from plait.protocol.codec import Payment
from plait.protocol.errors import RefusedError
from plait.protocol.ids import Hash, channel_id, keccak
from plait.protocol.messages import Pay, Voucher
from plait.protocol.tree import EMPTY_ROOT
from plait_node.broker import BrokerDownError, LogRecord
from plait_node.broker.leases import MemoryShared
from plait_node.gateway.custody import Custody
from plait_node.gateway.metrics import GatewayMetrics
from plait_node.gateway.replay import Replay
from plait_node.gateway.store import JobStore

pytestmark = pytest.mark.asyncio(loop_scope="session")

CHANNEL = channel_id(SIGNER.address, PAYEE, SIGNER.address)
SLOT = SimpleNamespace(deposit=DEPOSIT, claimed=0, exit_at=0)
STEPS = 120


class Flaky(MemoryShared):
    """A log whose answers come late, or never."""

    def __init__(self, clock: Callable[[], float], chance: random.Random) -> None:
        super().__init__(clock, lambda: False)
        self.chance = chance

    async def append(self, gateway: bytes, channel: bytes, record: LogRecord, *, after: int) -> int | None:
        for _ in range(self.chance.randrange(4)):
            await asyncio.sleep(0)
        lost = self.chance.random()
        if lost < 0.05:
            raise BrokerDownError("store a message")
        stored = await super().append(gateway, channel, record, after=after)
        for _ in range(self.chance.randrange(4)):
            await asyncio.sleep(0)
        if lost < 0.15:
            raise BrokerDownError("store a message")
        return stored


@dataclass(slots=True)
class Place:
    """One gateway's custody and book."""

    custody: Custody
    book: SharedBook
    journal: Journal
    store: JobStore


def place(folder: Path, name: str, shared: MemoryShared, clock: Callable[[], float]) -> Place:
    journal, store = Journal(folder / f"{name}-journal.sqlite"), JobStore(folder / f"{name}.sqlite")
    book = SharedBook(journal, DOMAIN, PAYEE)
    outside = cast(
        "Any",
        SimpleNamespace(me=PAYEE, domain=DOMAIN, clock=clock, book=book, broker=SimpleNamespace(shared=shared)),
    )
    custody = Custody(outside, store, Replay(outside, store), GatewayMetrics())
    custody.url = f"http://{name}"
    return Place(custody, book, journal, store)


def signed(base: int, number: int, amount: int) -> Payment:
    """Return a payment of a new request that extends a channel from `base`."""
    voucher = Voucher(
        payer=SIGNER.address, payee=PAYEE, cumulative=base + amount, jobs=0, receipts_root=Hash(EMPTY_ROOT)
    )
    request = keccak(b"race", number.to_bytes(4, "big"))
    paid = SIGNER.signed(DOMAIN, voucher)
    pay = Pay(request=request, voucher=paid.struct_hash(), amount=amount, to=0)
    return Payment(voucher=paid, pay=SIGNER.signed(DOMAIN, pay))


async def brought(at: Place, payment: Payment) -> Accepted | None:
    try:
        return await at.custody.accept(payment, cast("Any", SLOT), CHANNEL)
    except (PaymentError, RefusedError):
        return None


@pytest.mark.parametrize("seed", range(4))
async def test_of_contradicting_vouchers_at_racing_gateways_one_is_accepted(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    now = NOW
    shared = Flaky(lambda: now, chance)
    places = [place(tmp_path, name, shared, lambda: now) for name in "abc"]
    base, accepted, heard = 0, 0, 0
    for step in range(STEPS):
        now += chance.choice([0.0, 0.5, 4.0])  # with 4 s all leases end; some gateways renew theirs, some sleep on
        for each in places:
            if chance.random() < 0.5:
                await each.custody.renew()
        rivals = [signed(base, 2 * step + side, chance.randrange(1, 50)) for side in (0, 1)]
        tries = [(chance.choice(places), payment) for payment in rivals for _ in range(2)]
        answers = await asyncio.gather(*(brought(at, payment) for at, payment in tries))
        taken = {answer.request for answer in answers if answer}
        assert len(taken) <= 1
        heard += bool(taken)
        rows = await shared.rows(PAYEE, CHANNEL, after=0, most=10_000)
        pays = [row for row in rows if row.record.kind == "pay"]
        assert len(pays) - accepted in ((0, 1) if not taken else (1,))
        if len(pays) > accepted:  # perhaps without the payer having heard of it
            base = max(payment.voucher.message.cumulative for payment in rivals if logged(payment, pays))
        accepted = len(pays)

    last = place(tmp_path, "last", shared, lambda: now + 10)
    now += 10
    while not last.custody.owns(CHANNEL):
        await last.custody.renew()
        with suppress(RefusedError):
            await last.custody.hold(CHANNEL)
    cumulatives = [state.voucher.message.cumulative for state in last.book.channels()]
    assert (cumulatives, heard > STEPS / 3) == ([base], True)
    journals = [[_pay(each) for each, _ in at.book.payments(CHANNEL)] for at in (*places, last)]
    assert all(journal == journals[-1][: len(journal)] for journal in journals)
    assert len(journals[-1]) == accepted
    for each in (*places, last):
        each.journal.close()
        each.store.close()


def logged(payment: Payment, rows: list[Any]) -> bool:
    return any(payment.pay.signature in row.record.body for row in rows)


def _pay(payment: Payment) -> Hash:
    return payment.pay.struct_hash()
