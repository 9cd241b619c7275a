"""What a blob store is: large packs, announcements, evidence, wrapped keys, orders, ledger, dead letters.

It is untrusted: it gets ciphertext and public bytes only. Four versions, one Protocol: a local
directory, Redis, S3 and Cloud Storage. ``put_if_absent`` is atomic in all. Content-addressed
blobs (claim checks: packs too large for a message) are checked against their SHA-256 while they
are read, and each has a time until which it is kept; :mod:`.collect` removes it afterwards.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Iterator
from typing import Final, Protocol

from ...wire.errors import DeliveryError, MalformedError, VerificationError

MAX_KEY_CHARS: Final = 200
#: The largest pack (spec/wire.md, section 8).
MAX_BLOB_BYTES: Final = 128 << 20
#: What is read or written in one piece, so that no server is held up by a large blob.
PIECE_BYTES: Final = 4 << 20
CONTENT_PREFIX: Final = "sha256/"
EXPIRES_PREFIX: Final = "expires/"
HOUR_S: Final = 3600
#: Kept so long where a writer knows no deadline: longer than any broker keeps a message by default.
KEEP_S: Final = 14 * 86_400
_KEY: Final = re.compile(r"[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)*")


class BlobStore(Protocol):
    """Named blobs. Keys are path-like: parts of ``a-z 0-9 . _ -``, at most 200 characters."""

    def put(self, key: str, data: bytes, *, keep_until: int | None = None) -> None:
        """Store a blob, replacing an older one in one step.

        :param keep_until: Unix seconds; a store that expires by itself may drop the blob afterwards.
        :raises DeliveryError: ``BLOB_STORE_UNAVAILABLE``, or ``BLOB_STORE_FULL``: try again later.
        :raises MalformedError: ``BAD_BLOB_KEY`` or ``BLOB_TOO_LARGE`` (128 MiB).
        """

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Store a blob unless one is there; return whether this call stored it."""

    def pieces(self, key: str) -> Iterator[bytes]:
        """Yield a blob piece by piece; the caller stops where it becomes too long.

        :raises DeliveryError: ``BLOB_MISSING`` (not retriable) or ``BLOB_STORE_UNAVAILABLE``.
        """

    def get(self, key: str) -> bytes:
        """Return a blob; errors as of :meth:`pieces`, and ``BLOB_TOO_LARGE``."""

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
    if not is_key(key):
        raise MalformedError("BAD_BLOB_KEY", "a blob's key is not of its form")
    return key


def is_key(key: str) -> bool:
    """Return whether ``key`` is one."""
    return len(key) <= MAX_KEY_CHARS and ".." not in key and _KEY.fullmatch(key) is not None


def folder_of(prefix: str) -> str:
    """Return a prefix without its closing ``/``.

    :raises MalformedError: ``BAD_BLOB_KEY``: it has none, or is not of a key's form.
    """
    if not prefix.endswith("/"):
        raise MalformedError("BAD_BLOB_KEY", "a prefix of blobs ends with '/'")
    return check_key(prefix[:-1])


def check_size(size: int) -> None:
    """Return when a blob of ``size`` bytes may be stored and read.

    :raises MalformedError: ``BLOB_TOO_LARGE``.
    """
    if size > MAX_BLOB_BYTES:
        raise MalformedError("BLOB_TOO_LARGE", "a blob holds at most 128 MiB")


def whole(pieces: Iterator[bytes]) -> bytes:
    """Return all pieces as one, unless they are too long for a blob.

    :raises MalformedError: ``BLOB_TOO_LARGE``; no more is read then.
    """
    data = bytearray()
    for piece in pieces:
        data += piece
        check_size(len(data))
    return bytes(data)


def put_content(store: BlobStore, data: bytes, keep_until: int | None = None) -> str:
    """Store a blob under its SHA-256 and return that, in hexadecimal.

    :param keep_until: Unix seconds until which somebody may want it; 14 days from now by default.
    :raises DeliveryError: :raises MalformedError: as :meth:`BlobStore.put`.
    """
    check_size(len(data))
    until = int(time.time()) + KEEP_S if keep_until is None else keep_until
    hour = -(-until // HOUR_S)
    digest = hashlib.sha256(data).hexdigest()
    # First the mark, then the content: what has no mark is never collected, what has one always is.
    store.put(f"{EXPIRES_PREFIX}{digest}/{hour}", b"", keep_until=(hour + 1) * HOUR_S)
    store.put(CONTENT_PREFIX + digest, data, keep_until=(hour + 1) * HOUR_S)
    return digest


def get_content(store: BlobStore, digest: str, size: int | None = None) -> bytes:
    """Return the blob of a SHA-256, checked against it.

    :param digest: hexadecimal. :param size: its stated size in bytes; nothing is read beyond it.
    :raises VerificationError: ``BLOB_TAMPERED``.
    :raises DeliveryError: :raises MalformedError: as :meth:`BlobStore.get`.
    """
    limit = MAX_BLOB_BYTES if size is None else size
    check_size(limit)
    data, running = bytearray(), hashlib.sha256()
    for piece in store.pieces(CONTENT_PREFIX + digest):
        if len(data) + len(piece) > limit:
            raise _tampered()
        data += piece
        running.update(piece)
    if not hmac.compare_digest(running.hexdigest(), digest):
        raise _tampered()
    return bytes(data)


def _tampered() -> VerificationError:
    return VerificationError("BLOB_TAMPERED", "a blob is not what its hash says")


def missing() -> DeliveryError:
    """Return the error for a blob that is not there."""
    return DeliveryError("BLOB_MISSING", "there is no such blob", retriable=False)


def unavailable(reason: str | None = None) -> DeliveryError:
    """Return the error for a store that cannot be used now."""
    detail = f": {reason}" if reason else ""
    return DeliveryError("BLOB_STORE_UNAVAILABLE", f"the blob store cannot be used{detail}")


def full() -> DeliveryError:
    """Return the error for a store that has no room now."""
    return DeliveryError("BLOB_STORE_FULL", "the blob store has no room")
