"""The append-only audit log: one JSON line per request, chained by hashes, never a key byte.

Every line carries the SHA-256 of the line before it (``prev``; zeros in the first), so
that a line taken out or changed shows. Whoever can write the whole file can write a whole
new chain: keep the last hash elsewhere to notice that.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ....wire.errors import ConfigurationError, VerificationError
from .config import DEFAULT_MAX_AUDIT_BYTES

AUDIT_FILE: Final = "audit.jsonl"
MAX_LINE_BYTES: Final = 65_536
NO_LINE: Final = "00" * 32


class AuditLog:
    """Appends to ``audit.jsonl`` (mode 0600) in a folder; a full file becomes ``audit-000001.jsonl``.

    :param max_bytes: a file that is longer is set aside.
    :raises ConfigurationError: ``KMS_STORE_UNUSABLE``.
    """

    def __init__(self, directory: Path, *, max_bytes: int = DEFAULT_MAX_AUDIT_BYTES) -> None:
        self._path = directory / AUDIT_FILE
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        try:
            self._file = self._open()
            self._last = self._mend()
        except OSError as error:
            raise ConfigurationError(
                "KMS_STORE_UNUSABLE", f"cannot write the audit log: {error.strerror}"
            ) from None

    def write(self, entry: Mapping[str, object]) -> None:
        """Append one entry; an entry that cannot be written is an ``OSError``, and no key is released."""
        with self._lock:
            line = json.dumps({**entry, "prev": self._last}, sort_keys=True).encode()
            if len(line) > MAX_LINE_BYTES:
                raise OSError("an audit line is too long")
            if os.write(self._file, line + b"\n") != len(line) + 1:
                raise OSError("the audit log was cut short")
            os.fdatasync(self._file)
            self._last = hashlib.sha256(line).hexdigest()
            if os.fstat(self._file).st_size > self._max_bytes:
                self._rotate()

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _open(self) -> int:
        return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)

    def _rotate(self) -> None:
        os.close(self._file)
        self._path.rename(self._path.with_name(f"audit-{len(set_aside(self._path.parent)) + 1:06}.jsonl"))
        self._file = self._open()

    def _mend(self) -> str:
        """Cut off what a crash left of a line (nothing was released for it); return the last line's hash."""
        size = os.fstat(self._file).st_size
        start = max(size - 2 * MAX_LINE_BYTES, 0)
        tail = os.pread(self._file, size - start, start)
        whole = tail[: tail.rfind(b"\n") + 1]
        if len(whole) != len(tail):
            os.ftruncate(self._file, start + len(whole))
        if whole:
            return hashlib.sha256(whole[:-1].rpartition(b"\n")[2]).hexdigest()
        older = set_aside(self._path.parent)
        if not older:
            return NO_LINE
        return hashlib.sha256(older[-1].read_bytes().splitlines()[-1]).hexdigest()


def set_aside(directory: Path) -> list[Path]:
    """Return the audit files that are full, oldest first."""
    return sorted(directory.glob("audit-[0-9][0-9][0-9][0-9][0-9][0-9].jsonl"))


def check_audit(directory: Path) -> tuple[int, str]:
    """Follow the chain of an audit log from its first line; return how many lines and the last hash.

    :raises VerificationError: ``AUDIT_BROKEN``, with the number of the line.
    :raises ConfigurationError: ``KMS_STORE_UNUSABLE``.
    """
    count, last = 0, NO_LINE
    try:
        for path in (*set_aside(directory), directory / AUDIT_FILE):
            with path.open("rb") as file:
                for line in file:
                    count += 1
                    if not line.endswith(b"\n") or _previous(line) != last:
                        raise VerificationError("AUDIT_BROKEN", f"the chain breaks at line {count}")
                    last = hashlib.sha256(line[:-1]).hexdigest()
    except OSError:
        raise ConfigurationError("KMS_STORE_UNUSABLE", "cannot read the audit log") from None
    return count, last


def _previous(line: bytes) -> str | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    found = value.get("prev") if isinstance(value, dict) else None
    return found if isinstance(found, str) else None
