"""What the node does with a request from the chain before and after the worker's part."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.node.settlement.asked_cases import IDS, KEY, ME, NOW, parameters, requested

from plait.ledger import Journal
from plait.protocol.errors import BadRequestError, DeadlineError, PlaitError
from plait.protocol.ids import Hash
from plait.protocol.sealing import ContentKey
from plait_node.app.onchain import answer, collect_prompts, request_of
from plait_node.settlement import OnchainRequest, OnchainWatcher, begin_before
from plait_node.settlement.asked import Asked
from plait_node.settlement.requests import BEGIN_MARGIN_S, SEND_MARGIN_S

MIN_EXCLUSIVE_S = 60
DIGEST = Hash(b"\x09" * 32)


@dataclass(slots=True)
class Answered:
    """Stands for the worker and for what sends its answers."""

    tx: Hash | None = DIGEST
    error: Exception | None = None
    ran: list[tuple[object, ...]] = field(default_factory=list)
    sent: list[tuple[object, ...]] = field(default_factory=list)

    async def run_onchain(self, request: object, ids: object, key: object, *, begin_before: float) -> object:
        self.ran.append((request, ids, key, begin_before))
        if self.error:
            raise self.error
        return SimpleNamespace(receipt_digest=DIGEST, ids=(9, 8))

    async def fulfil(self, found: object, receipt: object, output: object) -> object:
        self.sent.append((found, receipt, output))
        return SimpleNamespace(tx=self.tx)


def asked(**changed: int) -> OnchainRequest:
    log = requested(3, parameters(key=KEY, **changed))
    return replace(OnchainRequest.from_event(1, log.topics, log.data), ids=IDS, content_key=KEY)


async def answered(both: Answered, found: OnchainRequest, **limits: int) -> None:
    request = request_of(found, chain_id=31_337, contract=b"\x08" * 20)
    limits = {"max_callback_gas": 200_000} | limits
    await answer(cast("Any", both), cast("Any", both), found, request, **limits)


async def test_answer_is_run_with_the_prompt_s_own_key_and_sent(caplog: pytest.LogCaptureFixture) -> None:
    both, found = Answered(), asked(callback_gas=200_000)
    with caplog.at_level(logging.INFO):
        await answered(both, found)

    ((request, ids, key, begin),) = both.ran
    assert request == request_of(found, chain_id=31_337, contract=b"\x08" * 20)
    assert (ids, key, begin) == (IDS, KEY, NOW + 300 - BEGIN_MARGIN_S)
    assert both.sent == [(found, DIGEST, (9, 8))]
    assert "on-chain request answered number=3" in caplog.text


async def test_answer_to_a_callback_above_the_operator_s_limit_is_not_begun(caplog: pytest.LogCaptureFixture) -> None:
    both = Answered()
    await answered(both, asked(callback_gas=200_001))
    await answered(both, asked(callback_gas=1), max_callback_gas=0)

    assert (both.ran, both.sent) == ([], [])
    assert "on-chain request refused number=3 error=its callback asks for 200001 gas" in caplog.text
    assert "max_callback_gas is 0" in caplog.text


async def test_answer_that_the_worker_refuses_is_not_sent(caplog: pytest.LogCaptureFixture) -> None:
    both = Answered(error=DeadlineError("no room in time"))
    await answered(both, asked())

    assert both.sent == []
    assert "on-chain request refused number=3 error=no room in time" in caplog.text


async def test_answer_that_was_moot_is_not_reported_as_answered(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        await answered(Answered(tx=None), asked())

    assert "answered" not in caplog.text


def test_margins_leave_time_for_work_within_the_shortest_exclusive_period() -> None:
    found = asked(exclusive_until=NOW + MIN_EXCLUSIVE_S)

    assert NOW < begin_before(found) < found.parameters.exclusive_until - SEND_MARGIN_S


@dataclass(slots=True)
class Brought:
    """Stands for the prompts that were brought to the broker and opened."""

    prompts: dict[Hash, list[tuple[list[int], ContentKey]]] = field(default_factory=dict)
    looked: list[Hash] = field(default_factory=list)
    kept: list[Hash] = field(default_factory=list)
    dropped: list[PlaitError] = field(default_factory=list)

    async def opened(self, request: Hash) -> list[tuple[list[int], ContentKey]]:
        self.looked.append(request)
        return self.prompts.pop(request, [])

    def drop(self, request: Hash, error: PlaitError) -> None:
        self.dropped.append(error)

    def keep(self, requests: object) -> None:
        self.kept = list(cast("Any", requests))


async def test_prompt_that_was_brought_is_given_to_the_request_that_it_fits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Journal(tmp_path / "journal") as journal, caplog.at_level(logging.DEBUG):
        with journal.write():
            for number, key in ((1, KEY), (2, ContentKey(b"\x08" * 32))):
                Asked(journal).take(requested(number, parameters(key=key)))
        watcher = OnchainWatcher(journal, cast("Any", None), ME, clock=lambda: NOW)
        first, second = (each.digest for each in watcher.unanswered())
        brought = Brought({first: [([9, 9, 9], KEY), (list(IDS), ContentKey.public()), (list(IDS), KEY)]})

        await collect_prompts(watcher, cast("Any", brought), now=NOW)

        assert (brought.looked, brought.kept) == ([first, second], [first, second])
        assert [type(each) for each in brought.dropped] == [BadRequestError] * 2
        assert [each.ids for each in watcher.unanswered()] == [IDS, ()]
        assert watcher.unanswered()[0].content_key.secret_bytes() == KEY.secret_bytes()
        await collect_prompts(watcher, cast("Any", brought), now=NOW)
        assert (brought.looked[2:], brought.kept) == ([second], [second])
    assert caplog.text.count("prompt of an on-chain request came number=1") == 1
    assert "70000" not in caplog.text


async def test_prompt_is_not_looked_for_when_its_answer_would_come_too_late(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal") as journal:
        with journal.write():
            Asked(journal).take(requested(1, parameters(key=KEY)))
        watcher, brought = OnchainWatcher(journal, cast("Any", None), ME, clock=lambda: NOW), Brought()

        await collect_prompts(watcher, cast("Any", brought), now=begin_before(watcher.unanswered()[0]))

        assert (brought.looked, brought.kept) == ([], [])
