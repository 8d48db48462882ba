"""The journal's file: append-only, tied to one deployment, whole after kill -9."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from tests.sdk.ledger_cases import DOMAIN, PAYEE, SIGNER, Pair, request

from plait.ledger import (
    ForeignJournalError,
    Journal,
    JournalError,
    JournalFullError,
    NewerJournalError,
    PayeeBook,
)
from plait.protocol.codec import payment_to_pb

ACCEPT_AND_DIE = """
import os, signal, sys
from pathlib import Path
from plait.ledger import Journal, PayeeBook
from plait.protocol.codec import parse, payment_from_pb
from plait.protocol.pb import signed_pb2
from tests.sdk.ledger_cases import DOMAIN, NOW, PAYEE

payment = payment_from_pb(parse(signed_pb2.Payment, bytes.fromhex(sys.argv[2])))
book = PayeeBook(Journal(sys.argv[1]), DOMAIN, PAYEE)
book.accept(payment, deposit=1000, claimed=0, exit_at=0, now=NOW)
os.kill(os.getpid(), signal.SIGKILL)  # before anybody could acknowledge it
"""


def test_journal_refuses_to_change_what_was_written(pair: Pair) -> None:
    pair.accept(pair.channel.pay(request(1), 100, 0))

    for statement in ("UPDATE payments SET at = 0", "DELETE FROM payments", "DELETE FROM channels"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            pair.payee_journal.run(statement)


def test_journal_transaction_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def write_and_fail(journal: Journal) -> None:
        with journal.write():
            journal.run("INSERT INTO meta VALUES ('a', x'00')")
            with journal.write():
                journal.run("INSERT INTO meta VALUES ('b', x'00')")
            raise LookupError

    with Journal(tmp_path / "j.db") as journal:
        with pytest.raises(LookupError):
            write_and_fail(journal)

        assert journal.all("SELECT * FROM meta") == []


def test_journal_on_a_full_disk_says_so_and_loses_nothing(pair: Pair) -> None:
    first = pair.accept(pair.channel.pay(request(1), 100, 0))
    pages = pair.payee_journal.one("PRAGMA page_count")
    assert pages is not None
    pair.payee_journal.run(f"PRAGMA max_page_count = {pages[0]}")  # SQLite then answers as on a full disk
    for number in range(2, 200):
        payment = pair.channel.pay(request(number), 1, 0)
        try:
            first = pair.accept(payment)
        except JournalFullError:
            break
    else:
        pytest.fail("the journal never filled up")
    assert pair.payee.channels()[0].voucher.message.cumulative == first.cumulative
    with pytest.raises(JournalFullError, match="make room") as caught:
        pair.accept(payment)
    assert caught.value.retry

    pair.payee_journal.run("PRAGMA max_page_count = 100000")
    assert pair.accept(payment).cumulative == first.cumulative + 1


def test_journal_is_durable_and_private(tmp_path: Path) -> None:
    with Journal(tmp_path / "deep" / "j.db") as journal:
        assert journal.one("PRAGMA synchronous") == (2,)
        assert journal.one("PRAGMA journal_mode") == ("wal",)
    assert (tmp_path / "deep" / "j.db").stat().st_mode & 0o777 == 0o600


def test_journal_of_another_deployment_is_refused(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.db") as journal:
        journal.bind(b"one")
        journal.bind(b"one")
    with Journal(tmp_path / "j.db") as journal, pytest.raises(ForeignJournalError, match="another deployment"):
        journal.bind(b"two")


def test_journal_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.db") as journal:
        journal.run("PRAGMA user_version = 99")

    with pytest.raises(NewerJournalError, match="upgrade plait"):
        Journal(tmp_path / "j.db")


def test_journal_of_the_first_version_keeps_the_money_and_reads_requests_again(pair: Pair) -> None:
    pair.accept(pair.channel.pay(request(1), 100, 0))
    journal = pair.payee_journal
    for statement in (
        "DROP TABLE debts",
        "DROP TABLE logged",
        "DROP TABLE prompts",
        "DROP TABLE asked",
        "CREATE TABLE asked (number INTEGER PRIMARY KEY, block INTEGER NOT NULL, body BLOB NOT NULL)",
        "INSERT INTO asked VALUES (1, 2, x'00')",
        "INSERT INTO checkpoints VALUES ('requests', 2, x'00'), ('claims', 2, x'00')",
        "PRAGMA user_version = 1",
    ):
        journal.run(statement)
    paid = journal.all("SELECT * FROM payments")
    journal.close()

    with Journal(journal.path) as again:
        assert again.one("PRAGMA user_version") == (4,)
        assert again.all("SELECT * FROM payments") == paid
        assert again.all("SELECT name FROM checkpoints") == [("claims",)]
        assert again.all("SELECT number, block, prompt, deadline, body FROM asked") == []
        assert again.all("SELECT prompt, ids, content_key, deadline FROM prompts") == []
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            again.run("DELETE FROM payments")


def test_journal_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "j.db").write_text("a shopping list, long enough to have a header " * 10)

    with pytest.raises(JournalError, match="no journal"):
        Journal(tmp_path / "j.db")


def test_journal_killed_after_accept_has_the_voucher(pair: Pair, tmp_path: Path) -> None:

    payment = pair.channel.pay(request(1), 100, 0)
    path = tmp_path / "other.db"
    command = [sys.executable, "-c", ACCEPT_AND_DIE, str(path), payment_to_pb(payment).SerializeToString().hex()]

    ended = subprocess.run(command, cwd=Path(__file__).parents[3], check=False, timeout=200)

    assert ended.returncode == -signal.SIGKILL
    with Journal(path) as journal:
        state = PayeeBook(journal, DOMAIN, PAYEE).state(SIGNER.address, SIGNER.address)
        assert state is not None
        assert state.voucher == payment.voucher
