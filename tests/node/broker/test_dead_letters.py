"""Jobs nobody could take: `plait node dead-letters` over a real server."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
from click.testing import Result
from tests.node.broker.waiting import SOON_S
from tests.sdk.swarm import DOMAIN, Swarm
from typer.testing import CliRunner

from plait.protocol import codec
from plait.protocol.ids import to_hex
from plait.protocol.pb import gateway_pb2
from plait.protocol.sealing import ContentKey
from plait_node.broker import NatsBroker, subjects
from plait_node.broker.dead import DeadLetters
from plait_node.broker.face import MAX_DELIVERIES, DeadLetter
from plait_node.cli import app

T = TypeVar("T")


class Desk:
    """One group of a broker, driven from a test that is no coroutine, as the command is none."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.group = secrets.token_bytes(8)
        self.swarm = Swarm()
        self.me = self.swarm.gateway.owner

    def call(self, *, left_s: float = 600) -> gateway_pb2.JobCall:
        quote = self.swarm.quote(self.swarm.prekey())
        request = self.swarm.request(quote.message, ContentKey.generate(), [1, 2, 3])
        request = replace(request, deadline=int(time.time() + left_s))
        signed = self.swarm.gateway.service.signed(DOMAIN, request)
        return gateway_pb2.JobCall(
            quote=codec.signed_to_pb(quote), request=codec.signed_to_pb(signed), prompt=b"sealed"
        )

    def given_up(self, reason: str, *, left_s: float = 600) -> bytes:
        """Publish a job and have a worker give it up; return its request."""
        request = secrets.token_bytes(32)

        async def act(broker: NatsBroker) -> None:
            await broker.publish_job(self.group, 1, self.call(left_s=left_s), request=request)
            await self.bury(broker, reason)

        self.run(act)
        return request

    async def bury(self, broker: NatsBroker, reason: str) -> None:
        async with asyncio.timeout(SOON_S), aclosing(broker.jobs(self.group)) as jobs:
            await (await anext(jobs)).dead(reason)

    def run(self, act: Callable[[NatsBroker], Awaitable[T]]) -> T:
        async def connected() -> T:
            broker = await NatsBroker.connect(self.url)
            try:
                return await act(broker)
            finally:
                await broker.close()

        return asyncio.run(connected())

    def letters(self) -> list[DeadLetter]:
        return [letter for letter in self.run(lambda broker: broker.dead_letters()) if letter.group == self.group]

    def told(self, request: bytes) -> list[str]:
        """Return the kinds of events that a follower of the answer sees now."""

        async def act(broker: NatsBroker) -> list[str]:
            seen: list[str] = []
            last, subject = 0, subjects.results(self.me, request)
            while (row := await broker._connection.next_after(subjects.RESULTS.name, subject, last)) is not None:
                last = row.sequence
                seen.append(gateway_pb2.ResultEvent.FromString(row.data).WhichOneof("body") or "")
            return seen

        return self.run(act)

    def command(self, *words: str) -> Result:
        return CliRunner().invoke(app, ["dead-letters", *words, "--broker", self.url])


@pytest.fixture
def desk(server_url: str) -> Desk:
    return Desk(server_url)


def test_dead_letters_are_listed_and_shown_without_a_word_of_the_prompt(desk: Desk) -> None:
    request = desk.given_up("the capsule does not open")

    listed, shown = desk.command("list"), desk.command("show", to_hex(request), "--json")
    facts = json.loads(shown.output)

    assert to_hex(request) in listed.output
    assert "the capsule does not open" in listed.output
    assert facts["reason"] == "the capsule does not open"
    assert facts["model"] == to_hex(desk.swarm.manifest.model_id)
    assert (facts["inputTokens"], facts["deliveries"], facts["priority"]) == (3, 1, 1)
    assert facts["sealedPrompt"] == "6 bytes"
    assert "reason" in desk.command("show", request.hex()[:12]).output


def test_dead_letter_queued_again_is_handed_out_as_a_later_delivery(desk: Desk) -> None:
    request = desk.given_up("no stage was there")
    assert desk.told(request) == ["error"]

    done = desk.command("requeue", to_hex(request))

    assert done.exit_code == 0, done.output
    assert "queued again" in done.output
    assert desk.letters() == []
    assert desk.told(request) == []  # the word that it was given up is taken back

    async def take(broker: NatsBroker) -> tuple[bytes, int, bytes]:
        async with asyncio.timeout(SOON_S), aclosing(broker.jobs(desk.group)) as jobs:
            delivery = await anext(jobs)
            await delivery.ack()
            return delivery.request, delivery.deliveries, delivery.call.prompt

    assert desk.run(take) == (request, 2, b"sealed")


def test_dead_letter_that_dies_again_is_kept_again(desk: Desk) -> None:
    request = desk.given_up("first")
    desk.command("requeue", to_hex(request))

    async def exhaust(broker: NatsBroker) -> None:
        async with asyncio.timeout(SOON_S), aclosing(broker.jobs(desk.group)) as jobs:
            for _ in range(MAX_DELIVERIES):
                await (await anext(jobs)).nak()
            burying = asyncio.ensure_future(anext(jobs))
            while await broker.backlog(desk.group):  # noqa: ASYNC110 - the other side is a server
                await asyncio.sleep(0.01)
            burying.cancel()
            await asyncio.wait({burying})

    desk.run(exhaust)
    (letter,) = desk.letters()
    assert (letter.request, letter.deliveries) == (request, 1 + MAX_DELIVERIES + 1)
    assert desk.told(request) == ["error"]


def test_dead_letter_queued_twice_after_a_crash_in_between_is_one_job(desk: Desk) -> None:
    desk.given_up("first")
    (letter,) = desk.letters()

    async def twice(broker: NatsBroker) -> tuple[bool, bool, int]:
        letters = DeadLetters(broker._connection)
        return await letters.requeue(letter), await letters.requeue(letter), await broker.backlog(desk.group)

    assert desk.run(twice) == (True, False, 1)


def test_dead_letter_past_its_deadline_is_not_queued_again_but_may_be_dropped(desk: Desk) -> None:
    request = desk.given_up("late", left_s=-5)

    refused = desk.command("requeue", to_hex(request))
    assert refused.exit_code != 0
    assert "drop it" in str(refused.exception)
    assert len(desk.letters()) == 1

    assert desk.command("drop", to_hex(request)).exit_code == 0
    assert desk.letters() == []


@pytest.mark.parametrize("name", ["0x", "0xab", "ff" * 32])
def test_dead_letter_of_no_such_name_is_refused(desk: Desk, name: str) -> None:
    desk.given_up("kept")
    refused = desk.command("drop", name)
    assert refused.exit_code != 0
    assert "dead-letters list" in str(refused.exception)
    assert len(desk.letters()) == 1


def test_command_names_what_it_lacks(tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["dead-letters", "list"])
    assert "--broker URL, or --config FILE" in str(told.exception)
    missing = ["--broker", "nats://127.0.0.1:1", "--nkey", str(tmp_path / "none.seed")]
    told = CliRunner().invoke(app, ["dead-letters", "list", *missing])
    assert "none.seed" in str(told.exception)


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("--server", "n1"),
        ("--server", "n1=host:4222"),
        ("--server", 'n1="x":1:2'),
        ("--worker", "0x12:0x34:cpu"),
        ("--worker", "0x" + "12" * 20),
        ("--gateway", "0x12"),
    ],
)
def test_command_refuses_a_plan_it_cannot_read(tmp_path: Path, option: str, text: str) -> None:
    server = [] if option == "--server" else ["--server", "n1=127.0.0.1:4222:6222"]
    told = CliRunner().invoke(app, ["broker", "init", str(tmp_path / "made"), *server, option, text])
    assert told.exit_code == 2
    assert not (tmp_path / "made").exists()
