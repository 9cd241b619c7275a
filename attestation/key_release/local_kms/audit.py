"""The append-only audit log: one JSON line per request, never a key byte."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ....wire.errors import ConfigurationError

AUDIT_FILE: Final = "audit.jsonl"


class AuditLog:
    """Appends to ``audit.jsonl`` (mode 0600) in a folder.

    :raises ConfigurationError: ``KMS_STORE_UNUSABLE``.
    """

    def __init__(self, directory: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        try:
            self._file = os.open(directory / AUDIT_FILE, flags, 0o600)
        except OSError as error:
            raise ConfigurationError(
                "KMS_STORE_UNUSABLE", f"cannot write the audit log: {error.strerror}"
            ) from None
        self._lock = threading.Lock()

    def write(self, entry: Mapping[str, object]) -> None:
        """Append one entry; an entry that cannot be written is an ``OSError``, and no key is released."""
        line = json.dumps(entry, sort_keys=True).encode() + b"\n"
        with self._lock:
            if os.write(self._file, line) != len(line):
                raise OSError("the audit log was cut short")

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
