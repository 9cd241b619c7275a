"""The proxy's own memory: one SQLite file, readable by its user only."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from ...wire.errors import ConfigurationError, DeliveryError

VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE receipts (
    id TEXT PRIMARY KEY, created REAL NOT NULL, pool TEXT NOT NULL, status TEXT NOT NULL, code TEXT NOT NULL,
    assurance TEXT NOT NULL, job_id TEXT NOT NULL, receipt_key TEXT, evidence TEXT, receipt BLOB,
    outcome BLOB NOT NULL, report TEXT, size INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX receipts_created ON receipts (created);
CREATE TABLE evidence (hash TEXT PRIMARY KEY, platform TEXT NOT NULL, document BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE files (
    id TEXT PRIMARY KEY, created REAL NOT NULL, name TEXT NOT NULL, purpose TEXT NOT NULL,
    bytes INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE batches (
    id TEXT PRIMARY KEY, created REAL NOT NULL, status TEXT NOT NULL, value TEXT NOT NULL
) WITHOUT ROWID;
"""


class Database:
    """One connection for all threads, one statement or transaction at a time.

    :raises ConfigurationError: ``PROXY_FOLDER_UNUSABLE`` or ``PROXY_FOLDER_VERSION``.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        try:
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            path.chmod(0o600)
            self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._open()
        except (OSError, sqlite3.Error):
            raise ConfigurationError(
                "PROXY_FOLDER_UNUSABLE", "the proxy's folder cannot be written, or its database is damaged"
            ) from None

    def _open(self) -> None:
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "secure_delete=ON"):
            self._connection.execute(f"PRAGMA {pragma}")
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version == 0:
            self._connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version={VERSION}; COMMIT;")
        elif version != VERSION:
            raise ConfigurationError("PROXY_FOLDER_VERSION", "the proxy's folder is of another version")

    def run(self, statement: str, *values: Any) -> int:
        """Run one statement and return how many rows it changed.

        :raises DeliveryError: ``PROXY_STORE_UNAVAILABLE``.
        """
        with self._lock, _reported():
            return self._connection.execute(statement, values).rowcount

    def rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a query; raises as :meth:`run`."""
        with self._lock, _reported():
            return self._connection.execute(statement, values).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Do all or nothing of what is run inside; raises as :meth:`run`."""
        with self._lock:
            with _reported():
                self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            with _reported():
                self._connection.execute("COMMIT")

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()


@contextmanager
def _reported() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error:
        raise DeliveryError("PROXY_STORE_UNAVAILABLE", "the proxy's database cannot be used") from None
