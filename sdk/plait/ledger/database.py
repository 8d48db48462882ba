"""One SQLite file as everything here keeps it: on disk before a call returns, and clear about a disk that is full.

WAL mode with synchronous=FULL: a transaction that ended survives kill -9 and a power cut.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from plait.ledger.errors import JournalError, JournalFullError

_BUSY_S = 5.0
# A disk that is full also fails to extend the file that readers share.
_NO_ROOM = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)

Row = tuple[Any, ...]


class Database:
    """One file, made when it is not there; only its owner may read it."""

    def __init__(self, path: Path | str) -> None:
        """Open the file; raise `JournalError` where it is no database, `JournalFullError` where there is no room."""
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self.path.exists():
            self.path.touch(mode=0o600)
        self._inside = False
        self._db = sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None)
        try:
            self.run("PRAGMA journal_mode = WAL")
            self.run("PRAGMA synchronous = FULL")
            self.run("PRAGMA foreign_keys = ON")
            self._prepare()
        except sqlite3.DatabaseError as error:
            self.close()
            raise JournalError(
                f"{self.path} is no journal ({error}); restore it from a copy, or name a new file"
            ) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file; all that was written stays."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def write(self) -> Generator[None]:
        """Run a transaction: all of it is on disk when the block ends, or nothing after an exception.

        Raise `JournalFullError` where the disk takes no more.
        """
        if self._inside:  # part of the transaction around it
            yield
            return
        self.run("BEGIN IMMEDIATE")
        self._inside = True
        try:
            yield
            self.run("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # a full disk ends some by itself
                self.run("ROLLBACK")
            raise
        finally:
            self._inside = False

    def run(self, statement: str, *values: object) -> int:
        """Run a statement and return the id of the row it made; raise `JournalFullError`."""
        with self._room():
            return self._db.execute(statement, values).lastrowid or 0

    def one(self, statement: str, *values: object) -> Row | None:
        """Return the first row of a query; raise `JournalFullError`."""
        with self._room():
            return self._db.execute(statement, values).fetchone()

    def all(self, statement: str, *values: object) -> list[Row]:
        """Return all rows of a query; raise `JournalFullError`."""
        with self._room():
            return self._db.execute(statement, values).fetchall()

    def _prepare(self) -> None:
        """Make the tables that are not there."""

    @contextmanager
    def _room(self) -> Generator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF in _NO_ROOM:
                raise JournalFullError(f"{self.path}: {error}; make room on its disk, then try again") from error
            raise


def statements(script: str) -> Iterable[str]:
    """Return the statements of a script, in order."""
    return (part.strip() for part in script.split(";") if part.strip())
