"""What the proxy keeps in its folder: receipts, files and batches, in one database and one directory."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from ...wire.errors import ConfigurationError
from .database import Database
from .files import FileStore
from .receipts import ReceiptStore
from .settings import ProxySettings


@dataclass
class Stores:
    """The proxy's folder (mode 0700), held by one process; a context manager."""

    settings: ProxySettings

    def __enter__(self) -> Self:
        """Open the folder.

        :raises ConfigurationError: ``PROXY_FOLDER_UNUSABLE``, ``PROXY_FOLDER_VERSION`` or ``PROXY_RUNNING``.
        """
        folder, settings = self.settings.folder, self.settings
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder.chmod(0o700)
            self._lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            message = "another proxy uses this folder: stop it, or name another with --folder"
            raise ConfigurationError("PROXY_RUNNING", message) from None
        except OSError as error:
            message = f"the proxy's folder cannot be used: {error.strerror}"
            raise ConfigurationError("PROXY_FOLDER_UNUSABLE", message) from None
        self.database = Database(folder / "proxy.db")
        self.receipts = ReceiptStore(
            self.database, settings.receipts_kept, settings.receipts_bytes, settings.receipts_days
        )
        self.receipts.prune()
        self.files = FileStore(self.database, folder / "files")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.database.close()
        os.close(self._lock)

    @property
    def tickets(self) -> Path:
        """Folder of the tickets of batches."""
        return self.settings.folder / "tickets"
