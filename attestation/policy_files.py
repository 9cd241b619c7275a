"""Files that survive a crash and two writers: written whole or not at all, under one lock."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def read_bounded(path: Path, limit: int) -> bytes:
    """Return a regular file's bytes, at most ``limit + 1`` of them.

    :raises OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return file.read(limit + 1)


def write_whole(path: Path, data: bytes, *, replace: bool = True) -> None:
    """Write a file so that readers see the old one or the new one, and a crash keeps either.

    :param replace: False: a file of that name stays as it is (:class:`FileExistsError`).
    :raises OSError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            os.replace(temporary, path)
        else:
            os.link(temporary, path)  # unlike a rename, this never replaces
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()
    _sync_folder(path.parent)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file (``flock``); the system frees it when its process ends, however it ends.

    :raises OSError: the lock file cannot be made.
    """
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
