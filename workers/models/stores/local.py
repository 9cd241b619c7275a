"""Packages as files."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ....wire.errors import ModelError
from .base import PIECE_BYTES, ObjectVersion, denied, exists, not_found, swapped, unavailable


class LocalModelStore:
    """One file; see :class:`.base.ModelStore`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def stat(self) -> ObjectVersion:
        """See :meth:`.base.ModelStore.stat`."""
        with _reported():
            if not self._path.is_file():
                raise not_found()
            return _version(self._path.stat())

    def read_range(self, version: ObjectVersion, start: int, stop: int) -> Iterator[bytes]:
        """See :meth:`.base.ModelStore.read_range`."""
        with _reported(), self._path.open("rb", buffering=0) as file:
            if _version(os.fstat(file.fileno())) != version:
                raise swapped()
            file.seek(start)
            while start < stop:
                piece = file.read(min(PIECE_BYTES, stop - start))
                if not piece:
                    return
                start += len(piece)
                yield piece
            # A file that is written in place has another time afterwards.
            if _version(os.fstat(file.fileno())) != version:
                raise swapped()

    def publish(self, package: Path, sha256: str) -> bool:
        """See :meth:`.base.ModelStore.publish`: a hard link, which fails where the name is taken."""
        draft = self._path.with_name(f"{self._path.name}.{secrets.token_hex(8)}.part")
        try:
            with _reported(writing=True):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                if self._path.exists():
                    return self._same(sha256)
                with package.open("rb") as source, draft.open("xb") as target:
                    shutil.copyfileobj(source, target, PIECE_BYTES)
                    target.flush()
                    os.fsync(target.fileno())
                try:
                    os.link(draft, self._path)
                except FileExistsError:
                    return self._same(sha256)
        finally:
            with suppress(OSError):  # what stands in the way has been reported
                draft.unlink(missing_ok=True)
        return True

    def close(self) -> None:
        """Nothing is kept open."""

    def _same(self, sha256: str) -> bool:
        with self._path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                raise exists()
        return False


def _version(found: os.stat_result) -> ObjectVersion:
    return ObjectVersion(
        found.st_size, f"{found.st_dev}.{found.st_ino}.{found.st_mtime_ns}.{found.st_ctime_ns}"
    )


@contextmanager
def _reported(*, writing: bool = False) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise not_found() from None
    except PermissionError:
        raise denied() from None
    except OSError as error:
        if writing:
            raise ModelError("PACKAGE_NOT_WRITTEN", f"cannot write the package: {error.strerror}") from None
        raise unavailable() from None
