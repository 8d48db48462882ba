"""What workers offer, read while they renew it."""

from __future__ import annotations

import secrets

import pytest

from plait.protocol.pb import gateway_pb2
from plait_node.broker import NatsBroker
from plait_node.broker.connection import Connection, Stored


async def test_offer_renewed_while_offers_are_read_counts_once(
    server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice, it would double the group's queue for as long as the list is kept."""
    worker, model, group = (secrets.token_bytes(size) for size in (20, 32, 8))
    broker = await NatsBroker.connect(server_url)
    await broker.offer(worker, model, gateway_pb2.WorkerOffer(body=b"old " + worker), group=group)
    look, renewed = Connection.next_after, False

    async def renewing(self: Connection, stream: str, subject: str, after: int) -> Stored | None:
        nonlocal renewed
        row = await look(self, stream, subject, after)
        if row is not None and worker in row.data and not renewed:
            renewed = True
            await broker.offer(worker, model, gateway_pb2.WorkerOffer(body=b"new " + worker), group=group)
        return row

    monkeypatch.setattr(Connection, "next_after", renewing)
    bodies = [offer.body for offer in await broker.offers() if worker in offer.body]
    assert bodies == [b"new " + worker]
    await broker.withdraw_offer(worker, model, group=group)
    await broker.close()
