"""Blob store: large packs, announcements, evidence and wrapped keys. Untrusted: ciphertext and public bytes only.

Two versions, one Protocol: a local directory and Redis. ``put_if_absent`` is atomic
in both. Content-addressed blobs are checked against their SHA-256 when they are read.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Protocol

from redis.exceptions import RedisError

from ..wire.errors import DeliveryError, MalformedError, VerificationError
from .redis_client import redis_client
from .settings import BrokerSettings

MAX_KEY_CHARS: Final = 200
MAX_REDIS_BLOB_BYTES: Final = 64 << 20
CONTENT_PREFIX: Final = "sha256/"
_KEY: Final = re.compile(r"[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)*")


class BlobStore(Protocol):
    """Named blobs. Keys are path-like: parts of ``a-z 0-9 . _ -``, at most 200 characters."""

    def put(self, key: str, data: bytes) -> None:
        """Store a blob, replacing an older one in one step.

        :raises DeliveryError: ``BLOB_STORE_UNAVAILABLE``. :raises MalformedError: ``BAD_BLOB_KEY``.
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
    if len(key) > MAX_KEY_CHARS or _KEY.fullmatch(key) is None:
        raise MalformedError("BAD_BLOB_KEY", "a blob's key is not of its form")
    return key


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
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise _unavailable(error.strerror) from None

    def put(self, key: str, data: bytes) -> None:
        """See :meth:`BlobStore.put`."""
        path = self._path(key)
        try:
            os.replace(self._draft(path, data), path)
            _sync(path.parent)
        except OSError as error:
            raise _unavailable(error.strerror) from None

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """See :meth:`BlobStore.put_if_absent`: a hard link, which fails where the name is taken."""
        path = self._path(key)
        if path.exists():
            return False
        try:
            draft = self._draft(path, data)
            try:
                os.link(draft, path)
            except FileExistsError:
                return False
            finally:
                draft.unlink(missing_ok=True)
            _sync(path.parent)
        except OSError as error:
            raise _unavailable(error.strerror) from None
        return True

    def get(self, key: str) -> bytes:
        """See :meth:`BlobStore.get`."""
        try:
            return self._path(key).read_bytes()
        except FileNotFoundError:
            raise _missing() from None
        except OSError as error:
            raise _unavailable(error.strerror) from None

    def exists(self, key: str) -> bool:
        """See :meth:`BlobStore.exists`."""
        return self._path(key).is_file()

    def list(self, prefix: str) -> Iterator[str]:
        """See :meth:`BlobStore.list`."""
        folder = self._path(prefix.rstrip("/"))
        for path in folder.rglob("*"):
            if path.is_file() and not path.name.startswith("."):
                yield path.relative_to(self._directory).as_posix()

    def delete(self, key: str) -> None:
        """See :meth:`BlobStore.delete`."""
        try:
            self._path(key).unlink(missing_ok=True)
        except OSError as error:
            raise _unavailable(error.strerror) from None

    def _path(self, key: str) -> Path:
        return self._directory / check_key(key)

    def _draft(self, path: Path, data: bytes) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = path.with_name(f".{secrets.token_hex(8)}")
        descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return draft


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
        data = self._call("get", self._key(key))
        if data is None:
            raise _missing()
        return bytes(data)

    def exists(self, key: str) -> bool:
        """See :meth:`BlobStore.exists`."""
        return bool(self._call("exists", self._key(key)))

    def list(self, prefix: str) -> Iterator[str]:
        """See :meth:`BlobStore.list`."""
        start = self._key(prefix.rstrip("/")) + "/"
        try:
            for name in self._client.scan_iter(match=start + "*", count=500):
                yield name.decode().removeprefix("blob:")
        except (RedisError, OSError):
            raise _unavailable() from None

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
        if len(data) > MAX_REDIS_BLOB_BYTES:
            raise MalformedError("BLOB_TOO_LARGE", "a blob in Redis holds at most 64 MiB")
        return data


def make_blob_store(settings: BrokerSettings) -> BlobStore:
    """Return the profile's blob store: a folder beside the embedded broker, or Redis itself."""
    if settings.url.startswith("redis+socket:"):
        return LocalBlobStore(settings.state_dir / "blobs")
    return RedisBlobStore(settings)
