"""Requests and prompts in the journal: joined by the commitment, whatever comes first, across restarts and reorgs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.node.settlement.asked_cases import IDS, KEY, NOW, parameters, published, requested

from plait.ledger import Journal
from plait.protocol.errors import BadRequestError
from plait.protocol.sealing import ContentKey
from plait_node.settlement.asked import Asked


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "journal.db") as made:
        yield made


def test_request_with_a_public_prompt_is_joined_with_it(journal: Journal) -> None:
    asked = Asked(journal)
    asked.take(requested(1, parameters()))
    asked.take(published(1))

    (found,) = asked.waiting(NOW)

    assert (found.number, found.ids, found.parameters) == (1, IDS, parameters())
    assert found.content_key.secret_bytes() == ContentKey.public().secret_bytes()
    assert found.open_hash == found.parameters.hash()


def test_request_by_commitment_waits_for_its_prompt_over_a_restart(journal: Journal) -> None:
    Asked(journal).take(requested(1, parameters(key=KEY)))
    assert [each.ids for each in Asked(journal).waiting(NOW)] == [()]

    Asked(journal).give(1, IDS, KEY)
    with Journal(journal.path) as again:
        (found,) = Asked(again).waiting(NOW)

    assert found.ids == IDS
    assert found.content_key.secret_bytes() == KEY.secret_bytes()


@pytest.mark.parametrize(
    ("number", "ids", "key", "text"),
    [
        (2, IDS, KEY, "no request 2"),
        (1, (1, 2, 3), KEY, "not what request 1 commits to"),
        (1, IDS, ContentKey.public(), "not what request 1 commits to"),
    ],
)
def test_prompt_that_does_not_fit_is_refused(
    journal: Journal, number: int, ids: tuple[int, ...], key: ContentKey, text: str
) -> None:
    asked = Asked(journal)
    asked.take(requested(1, parameters(key=KEY)))

    with pytest.raises(BadRequestError, match=text):
        asked.give(number, ids, key)

    assert [each.ids for each in asked.waiting(NOW)] == [()]


def test_prompt_follows_its_request_to_another_number_and_no_other_request(journal: Journal) -> None:
    asked = Asked(journal)
    asked.take(requested(1, parameters(key=KEY), block=5))
    asked.give(1, IDS, KEY)

    asked.unwind(4)
    asked.take(requested(1, parameters(ids=(9,)), block=5))
    asked.take(requested(2, parameters(key=KEY), block=5))

    assert [(each.number, each.ids) for each in asked.waiting(NOW)] == [(1, ()), (2, IDS)]


def test_unwind_forgets_only_what_came_later(journal: Journal) -> None:
    asked = Asked(journal)
    asked.take(requested(1, parameters(), block=4))
    asked.take(requested(2, parameters(), block=5))

    asked.unwind(4)

    assert [each.number for each in asked.waiting(NOW)] == [1]


def test_waiting_ends_with_the_deadline_and_forget_clears_the_prompt_of_the_last_request(journal: Journal) -> None:
    asked = Asked(journal)
    for number, deadline in ((1, NOW + 600), (2, NOW + 900)):
        asked.take(requested(number, parameters(key=KEY, deadline=deadline)))
        asked.give(number, IDS, KEY)

    assert [each.number for each in asked.waiting(NOW + 600)] == [2]
    asked.forget(NOW + 601)
    assert [each.ids for each in asked.waiting(NOW)] == [IDS]
    asked.forget(NOW + 901)
    assert (journal.all("SELECT * FROM asked"), journal.all("SELECT * FROM prompts")) == ([], [])
