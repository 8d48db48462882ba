"""Whatever bytes come in: a fault with a status below 500, and a gateway that serves the next call."""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.node.gateway.stand import Stand, fault

from plait.protocol.ids import to_hex

_REQUEST = to_hex(bytes(range(32)))
_PATHS = (
    "/v1/quotes",
    "/v1/jobs",
    "/v1/vouchers",
    "/v1/channels/state",
    f"/v1/jobs/{_REQUEST}/events",
    f"/v1/jobs/{_REQUEST}/cancel",
    "/v1/requests/7/prompt",
)


class Bench:
    """One stand and one loop for all examples of a test."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.folder = TemporaryDirectory()
        self.stand = Stand(Path(self.folder.name), patient=True)
        self.running = self.stand.running()
        self.client: httpx.AsyncClient = self.loop.run_until_complete(self.running.__aenter__())
        self.loop.run_until_complete(self.stand.offer())
        self.asked = self.stand.ask(self.loop.run_until_complete(self.stand.quote(self.client)))

    def post(self, path: str, body: bytes) -> httpx.Response:
        return self.loop.run_until_complete(self.client.post(path, content=body))

    def close(self) -> None:
        self.loop.run_until_complete(self.running.__aexit__(None, None, None))
        self.stand.payer._journal.close()
        self.loop.close()
        self.folder.cleanup()


_SETTINGS = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def test_random_bodies_never_fail_the_gateway() -> None:
    bench = Bench()

    @_SETTINGS
    @given(path=st.sampled_from(_PATHS), body=st.binary(max_size=2_000))
    def run(path: str, body: bytes) -> None:
        response = bench.post(path, body)
        assert response.status_code < 500, fault(response)
        if response.status_code != 200:
            assert fault(response).code

    try:
        run()
        assert bench.post("/v1/jobs", bench.asked.call.SerializeToString()).status_code == 200
    finally:
        bench.close()


def test_job_with_bytes_changed_never_moves_money_or_fails_the_gateway() -> None:
    bench = Bench()
    honest = bench.asked.call.SerializeToString()
    stand = bench.stand

    @_SETTINGS
    @given(
        place=st.integers(0, len(honest) - 1),
        change=st.sampled_from(["flip", "cut", "insert", "double"]),
        byte=st.integers(1, 255),
    )
    def run(place: int, change: str, byte: int) -> None:
        body = bytearray(honest)
        match change:
            case "flip":
                body[place] ^= byte
            case "cut":
                del body[place:]
            case "insert":
                body.insert(place, byte)
            case _:
                body[place:place] = body[:place]
        response = bench.post("/v1/jobs", bytes(body))
        assert response.status_code < 500, fault(response)

    try:
        run()
        response = bench.post("/v1/jobs", honest)
        assert response.status_code in {200, 409}  # 409: a change of what nobody signs (prompt, capsules) came first
        state = stand.book.state(stand.payer.payer, stand.payer.signer)
        assert state is not None
        assert state.voucher == bench.asked.payment.voucher
    finally:
        bench.close()


def test_random_paths_never_fail_the_gateway() -> None:
    bench = Bench()

    @_SETTINGS
    @given(
        root=st.sampled_from(["manifests", "files", "receipts", "jobs"]),
        parts=st.lists(st.text(st.characters(codec="ascii", exclude_characters="/?#"), max_size=70), max_size=3),
    )
    def run(root: str, parts: list[str]) -> None:
        path = "/".join(("/v1", root, *(quote(part, safe="") for part in parts)))
        response = bench.loop.run_until_complete(bench.client.get(path))
        assert response.status_code < 500

    try:
        run()
    finally:
        bench.close()
