"""Files of batches: inputs that were uploaded, outputs and errors that were made. Plaintext, mode 0600."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from ...wire.errors import ConfigurationError, DeliveryError
from .database import Database
from .errors import ApiError

Purpose = Literal["batch", "batch_output"]
_COLUMNS: Final = "id, created, name, purpose, bytes"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file, without its contents. ``created`` is Unix seconds."""

    id: str
    created: float
    name: str
    purpose: str
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """Return OpenAI's file object."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.bytes,
            "created_at": int(self.created),
            "filename": self.name,
            "purpose": self.purpose,
            "status": "processed",
            "status_details": None,
        }


@dataclass
class FileStore:
    """Files by id. A file is known once it is whole and synced.

    :raises ConfigurationError: ``PROXY_FOLDER_UNUSABLE``.
    """

    database: Database
    folder: Path
    now: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        try:
            self.folder.mkdir(exist_ok=True, mode=0o700)
            known = {row[0] for row in self.database.rows("SELECT id FROM files")}
            for path in self.folder.iterdir():
                if path.name not in known:
                    path.unlink()  # an upload or output that a crash cut short
        except OSError as error:
            raise ConfigurationError(
                "PROXY_FOLDER_UNUSABLE", f"the proxy's folder cannot be used: {error.strerror}"
            ) from None

    def draft(self) -> Draft:
        """Begin a new file.

        :raises DeliveryError: ``PROXY_STORE_UNAVAILABLE``.
        """
        return Draft(self, "file-" + secrets.token_hex(16))

    def get(self, file_id: str) -> StoredFile:
        """Return a file's entry.

        :raises ApiError: 404.
        """
        rows = self.database.rows(f"SELECT {_COLUMNS} FROM files WHERE id = ?", file_id)  # noqa: S608
        if not rows:
            raise ApiError(404, "No such File object.", param="file_id", code="file_not_found")
        return StoredFile(*rows[0])

    def path(self, file_id: str) -> Path:
        """Return where a known file's contents lie.

        :raises ApiError: 404.
        """
        return self.folder / self.get(file_id).id

    def all(self, purpose: str | None, newest_first: bool) -> list[StoredFile]:
        """Return all files in order of creation."""
        order = "DESC" if newest_first else "ASC"
        rows = self.database.rows(
            f"SELECT {_COLUMNS} FROM files WHERE ? IS NULL OR purpose = ? "  # noqa: S608
            f"ORDER BY created {order}, id {order}",
            purpose,
            purpose,
        )
        return [StoredFile(*row) for row in rows]

    def delete(self, file_id: str) -> None:
        """Forget a file and its contents.

        :raises ApiError: 404.
        """
        path = self.path(file_id)
        self.database.run("DELETE FROM files WHERE id = ?", file_id)
        with suppress(OSError):
            path.unlink()


class Draft:
    """A file that is being written; unless it is kept, nothing of it stays."""

    def __init__(self, store: FileStore, file_id: str) -> None:
        self._store, self.id, self.size = store, file_id, 0
        self.path = store.folder / file_id
        try:
            descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        except OSError:
            raise _unwritable() from None
        self._file = os.fdopen(descriptor, "wb")

    def write(self, data: bytes) -> None:
        """Append bytes.

        :raises DeliveryError: ``PROXY_STORE_UNAVAILABLE``.
        """
        try:
            self._file.write(data)
        except OSError:
            raise _unwritable() from None
        self.size += len(data)

    def keep(self, name: str, purpose: Purpose) -> StoredFile:
        """Sync the file and make it known; raises as :meth:`write`."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        except OSError:
            raise _unwritable() from None
        stored = StoredFile(self.id, self._store.now(), name, purpose, self.size)
        self._store.database.run(
            "INSERT INTO files VALUES (?, ?, ?, ?, ?)", stored.id, stored.created, name, purpose, stored.bytes
        )
        return stored

    def drop(self) -> None:
        """Forget what was written."""
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self.path.unlink()


def _unwritable() -> DeliveryError:
    return DeliveryError("PROXY_STORE_UNAVAILABLE", "the proxy's folder cannot be written", retriable=False)
