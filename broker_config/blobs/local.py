"""Blobs as files."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from .base import PIECE_BYTES, check_key, check_size, folder_of, full, is_key, missing, unavailable, whole

_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
#: A folder that another process tidies away at the very moment is made again.
_ATTEMPTS: Final = 5


class LocalBlobStore:
    """Blobs as files in a directory (mode 0700), each written whole and synced before it appears."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        with _reported():
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def put(self, key: str, data: bytes, *, keep_until: int | None = None) -> None:
        """See :meth:`BlobStore.put`."""
        path = self._path(key)
        with _reported(), self._draft(path, data) as draft:
            draft.replace(path)
            _sync(path.parent)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """See :meth:`BlobStore.put_if_absent`: a hard link, which fails where the name is taken."""
        path = self._path(key)
        check_size(len(data))
        with _reported():
            if path.is_file():
                return False
            with self._draft(path, data) as draft:
                try:
                    os.link(draft, path)
                except FileExistsError:
                    return False
                _sync(path.parent)
        return True

    def pieces(self, key: str) -> Iterator[bytes]:
        """See :meth:`BlobStore.pieces`."""
        with _reported():
            try:
                with self._path(key).open("rb") as file:
                    while piece := file.read(PIECE_BYTES):
                        yield piece
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                raise missing() from None

    def get(self, key: str) -> bytes:
        """See :meth:`BlobStore.get`."""
        return whole(self.pieces(key))

    def exists(self, key: str) -> bool:
        """See :meth:`BlobStore.exists`."""
        with _reported():
            return self._path(key).is_file()

    def list(self, prefix: str) -> Iterator[str]:
        """See :meth:`BlobStore.list`."""
        start = self._path(folder_of(prefix))
        for folder, _, names in os.walk(start):
            for name in names:
                key = (Path(folder) / name).relative_to(self._directory).as_posix()
                if is_key(key):
                    yield key

    def delete(self, key: str) -> None:
        """See :meth:`BlobStore.delete`."""
        path = self._path(key)
        with _reported():
            if path.is_file():
                path.unlink(missing_ok=True)
                self._tidy(path.parent)

    def _tidy(self, folder: Path) -> None:
        """Remove folders that have become empty: marks of expiry have one each."""
        with suppress(OSError):
            while folder != self._directory:
                folder.rmdir()
                folder = folder.parent

    def _path(self, key: str) -> Path:
        return self._directory / check_key(key)

    @contextmanager
    def _draft(self, path: Path, data: bytes) -> Iterator[Path]:
        """Yield a synced file beside ``path`` that is gone afterwards, unless it was renamed."""
        check_size(len(data))
        draft = path.with_name(f".{secrets.token_hex(8)}")
        try:
            with os.fdopen(_opened(draft), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield draft
        finally:
            draft.unlink(missing_ok=True)


def _opened(draft: Path) -> int:
    """Create a file; its folder is made again where another process has just tidied it away."""
    for attempt in range(_ATTEMPTS):
        draft.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            return os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        except FileNotFoundError:
            if attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


@contextmanager
def _reported() -> Iterator[None]:
    """Turn the system's errors into ``BLOB_STORE_UNAVAILABLE``."""
    try:
        yield
    except OSError as error:
        raise (full() if error.errno in _FULL else unavailable(error.strerror)) from None


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
