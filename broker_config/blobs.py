"""Blob store: large packs, announcements, evidence and wrapped keys.

It is untrusted: it gets ciphertext and public bytes only. Two versions, one Protocol: a
local directory and Redis. ``put_if_absent`` is atomic in both. Content-addressed blobs
are checked against their SHA-256 when they are read.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

from redis.exceptions import RedisError

from ..wire.errors import DeliveryError, MalformedError, VerificationError
from .redis.client import redis_client
from .settings import BrokerSettings

MAX_KEY_CHARS: Final = 200
MAX_BLOB_BYTES: Final = 64 << 20
CONTENT_PREFIX: Final = "sha256/"
_KEY: Final = re.compile(r"[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)*")


class BlobStore(Protocol):
    """Named blobs. Keys are path-like: parts of ``a-z 0-9 . _ -``, at most 200 characters."""

    def put(self, key: str, data: bytes) -> None:
        """Store a blob, replacing an older one in one step.

        :raises DeliveryError: ``BLOB_STORE_UNAVAILABLE``.
        :raises MalformedError: ``BAD_BLOB_KEY`` or ``BLOB_TOO_LARGE`` (64 MiB).
        """

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Store a blob unless one is there; return whether this call stored it."""

    def get(self, key: str) -> bytes:
        """Return a blob.

        :raises DeliveryError: ``BLOB_MISSING`` (not retriable) or ``BLOB_STORE_UNAVAILABLE``.
        """

    def exists(self, key: str) -> bool:
        """Return whether there is a blob."""

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys that begin with ``prefix``, which ends with ``/``."""

    def delete(self, key: str) -> None:
        """Remove a blob; harmless when there is none."""


def check_key(key: str) -> str:
    """Return ``key`` when it is one.

    :raises MalformedError: ``BAD_BLOB_KEY``.
    """
    if not _is_key(key):
        raise MalformedError("BAD_BLOB_KEY", "a blob's key is not of its form")
    return key


def _is_key(key: str) -> bool:
    return len(key) <= MAX_KEY_CHARS and ".." not in key and _KEY.fullmatch(key) is not None


def check_size(size: int) -> None:
    """Return when a blob of ``size`` bytes may be stored and read.

    :raises MalformedError: ``BLOB_TOO_LARGE``.
    """
    if size > MAX_BLOB_BYTES:
        raise MalformedError("BLOB_TOO_LARGE", "a blob holds at most 64 MiB")


def put_content(store: BlobStore, data: bytes) -> str:
    """Store a blob under its SHA-256 and return that, in hexadecimal."""
    digest = hashlib.sha256(data).hexdigest()
    store.put_if_absent(CONTENT_PREFIX + digest, data)
    return digest


def get_content(store: BlobStore, digest: str) -> bytes:
    """Return the blob of a SHA-256, checked against it.

    :raises VerificationError: ``BLOB_TAMPERED``. :raises DeliveryError: as :meth:`BlobStore.get`.
    """
    data = store.get(CONTENT_PREFIX + digest)
    if not hmac.compare_digest(hashlib.sha256(data).hexdigest(), digest):
        raise VerificationError("BLOB_TAMPERED", "a blob is not what its hash says")
    return data


def _missing() -> DeliveryError:
    return DeliveryError("BLOB_MISSING", "there is no such blob", retriable=False)


def _unavailable(reason: str | None = None) -> DeliveryError:
    detail = f": {reason}" if reason else ""
    return DeliveryError("BLOB_STORE_UNAVAILABLE", f"the blob store cannot be used{detail}")


class LocalBlobStore:
    """Blobs as files in a directory (mode 0700), each written whole and synced before it appears."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        with _reported():
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def put(self, key: str, data: bytes) -> None:
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

    def get(self, key: str) -> bytes:
        """See :meth:`BlobStore.get`."""
        with _reported():
            try:
                with self._path(key).open("rb") as file:
                    data = file.read(MAX_BLOB_BYTES + 1)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                raise _missing() from None
        check_size(len(data))
        return data

    def exists(self, key: str) -> bool:
        """See :meth:`BlobStore.exists`."""
        with _reported():
            return self._path(key).is_file()

    def list(self, prefix: str) -> Iterator[str]:
        """See :meth:`BlobStore.list`."""
        start = self._path(_folder(prefix))
        for folder, _, names in os.walk(start):
            for name in names:
                key = (Path(folder) / name).relative_to(self._directory).as_posix()
                if _is_key(key):
                    yield key

    def delete(self, key: str) -> None:
        """See :meth:`BlobStore.delete`."""
        path = self._path(key)
        with _reported():
            if path.is_file():
                path.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._directory / check_key(key)

    @contextmanager
    def _draft(self, path: Path, data: bytes) -> Iterator[Path]:
        """Yield a synced file beside ``path`` that is gone afterwards, unless it was renamed."""
        check_size(len(data))
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = path.with_name(f".{secrets.token_hex(8)}")
        try:
            descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield draft
        finally:
            draft.unlink(missing_ok=True)


@contextmanager
def _reported() -> Iterator[None]:
    """Turn the system's errors into ``BLOB_STORE_UNAVAILABLE``."""
    try:
        yield
    except OSError as error:
        raise _unavailable(error.strerror) from None


def _folder(prefix: str) -> str:
    if not prefix.endswith("/"):
        raise MalformedError("BAD_BLOB_KEY", "a prefix of blobs ends with '/'")
    return prefix[:-1]


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class RedisBlobStore:
    """Blobs as Redis strings under ``blob:``, on the server that carries the messages."""

    def __init__(self, settings: BrokerSettings) -> None:
        self._client: Any = redis_client(settings)

    def put(self, key: str, data: bytes) -> None:
        """See :meth:`BlobStore.put`."""
        self._call("set", self._key(key), self._sized(data))

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """See :meth:`BlobStore.put_if_absent`: ``SET NX``."""
        return bool(self._call("set", self._key(key), self._sized(data), nx=True))

    def get(self, key: str) -> bytes:
        """See :meth:`BlobStore.get`."""
        # GETRANGE reads no more than asked for, and answers b"" where there is nothing.
        data = bytes(self._call("getrange", self._key(key), 0, MAX_BLOB_BYTES))
        check_size(len(data))
        if not data and not self.exists(key):
            raise _missing()
        return data

    def exists(self, key: str) -> bool:
        """See :meth:`BlobStore.exists`."""
        return bool(self._call("exists", self._key(key)))

    def list(self, prefix: str) -> Iterator[str]:
        """See :meth:`BlobStore.list`."""
        start = self._key(_folder(prefix)) + "/"
        try:  # SCAN may name a key twice
            found = set(self._client.scan_iter(match=start + "*", count=500))
        except (RedisError, OSError):
            raise _unavailable() from None
        # Others may write there too: what is no key of ours, maybe not even text, is no blob.
        names = (name.removeprefix(b"blob:").decode("ascii", "replace") for name in found)
        yield from (name for name in names if _is_key(name))

    def delete(self, key: str) -> None:
        """See :meth:`BlobStore.delete`."""
        self._call("delete", self._key(key))

    def _call(self, name: str, *arguments: object, **options: object) -> Any:
        try:
            return getattr(self._client, name)(*arguments, **options)
        except (RedisError, OSError):
            raise _unavailable() from None

    def _key(self, key: str) -> str:
        return "blob:" + check_key(key)

    def _sized(self, data: bytes) -> bytes:
        check_size(len(data))
        return data


def make_blob_store(settings: BrokerSettings) -> BlobStore:
    """Return the profile's blob store: a folder beside the embedded broker, or Redis itself."""
    if settings.profile == "embedded":
        return LocalBlobStore(settings.state_dir / "blobs")
    return RedisBlobStore(settings)
