"""Remembers the ``cti`` of receipts, so that each is accepted once."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from typing import Final, Protocol

from ..wire.errors import EndorsementsError

_PRUNE_EVERY: Final = 1024
_NEVER: Final = (1 << 63) - 1


class ReplayStore(Protocol):
    """A set of seen ``cti`` values; adding and asking is one atomic step."""

    def add(self, cti: bytes, *, now: int, expires: int | None) -> bool:
        """Remember ``cti``; True when it was new, False when it is a replay.

        :param now: Unix seconds. :param expires: Unix seconds after which freshness alone would refuse the
            receipt, so that it may be forgotten; None means never.
        :raises EndorsementsError: the store cannot be used.
        """


class MemoryReplayStore:
    """Remembers within this process. Safe between threads."""

    def __init__(self) -> None:
        self._seen: dict[bytes, int] = {}
        self._lock = threading.Lock()
        self._until_prune = _PRUNE_EVERY

    def add(self, cti: bytes, *, now: int, expires: int | None) -> bool:
        """Remember ``cti``; True when it was new (see :class:`ReplayStore`)."""
        with self._lock:
            self._until_prune -= 1
            if self._until_prune <= 0:
                self._seen = {known: end for known, end in self._seen.items() if end >= now}
                self._until_prune = max(_PRUNE_EVERY, len(self._seen))
            if cti in self._seen:
                return False
            self._seen[cti] = _end(expires)
            return True

    def __len__(self) -> int:
        return len(self._seen)


class SqliteReplayStore:
    """Remembers in a file. Safe between threads and processes of one machine.

    :param path: the database file, made when it is missing.
    :raises EndorsementsError: ``REPLAY_STORE_UNAVAILABLE``.
    """

    def __init__(self, path: Path | str) -> None:
        self._lock = threading.Lock()
        self._until_prune = _PRUNE_EVERY
        try:
            self._db = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS seen"
                " (cti BLOB PRIMARY KEY, expires INTEGER NOT NULL) WITHOUT ROWID"
            )
        except sqlite3.Error:
            raise EndorsementsError("REPLAY_STORE_UNAVAILABLE", "the replay store cannot be opened") from None

    def add(self, cti: bytes, *, now: int, expires: int | None) -> bool:
        """Remember ``cti``; True when it was new (see :class:`ReplayStore`)."""
        try:
            with self._lock:
                self._until_prune -= 1
                if self._until_prune <= 0:
                    self._db.execute("DELETE FROM seen WHERE expires < ?", (min(now, _NEVER),))
                    self._until_prune = _PRUNE_EVERY
                cursor = self._db.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (cti, _end(expires)))
                return cursor.rowcount == 1
        except sqlite3.Error:
            raise EndorsementsError("REPLAY_STORE_UNAVAILABLE", "the replay store cannot be used") from None

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def _end(expires: int | None) -> int:
    return _NEVER if expires is None else min(expires, _NEVER)
