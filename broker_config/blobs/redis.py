"""Blobs on the Redis that carries the messages."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from redis.exceptions import OutOfMemoryError, RedisError

from ...wire.errors import DeliveryError
from ..redis.client import redis_client
from ..settings import BrokerSettings
from .base import PIECE_BYTES, check_key, check_size, folder_of, full, is_key, missing, unavailable, whole

#: Seconds after which Redis forgets a draft whose writer died.
DRAFT_S: Final = 600
# KEYS: draft, blob. ARGV: keep_until in Unix seconds, 0: for ever. What is kept longer stays kept longer.
_SETTLE: Final = """
local left = redis.call('PTTL', KEYS[2])
local t = redis.call('TIME')
redis.call('RENAME', KEYS[1], KEYS[2])
if left == -1 or ARGV[1] == '0' then redis.call('PERSIST', KEYS[2]) return 1 end
local wanted = ARGV[1] * 1000 - (t[1] * 1000 + math.floor(t[2] / 1000))
redis.call('PEXPIRE', KEYS[2], math.max(left, wanted, 1))
return 1
"""
# KEYS: blob. ARGV: data, keep_until. As above for what is small.
_SET: Final = """
local left = redis.call('PTTL', KEYS[1])
local t = redis.call('TIME')
redis.call('SET', KEYS[1], ARGV[1])
if left == -1 then return 1 end
local wanted = ARGV[2] * 1000 - (t[1] * 1000 + math.floor(t[2] / 1000))
redis.call('PEXPIRE', KEYS[1], math.max(left, wanted, 1))
return 1
"""


class RedisBlobStore:
    """Blobs as Redis strings under ``blob:``, on the server that carries the messages."""

    def __init__(self, settings: BrokerSettings) -> None:
        self._client: Any = redis_client(settings)

    def put(self, key: str, data: bytes, *, keep_until: int | None = None) -> None:
        """See :meth:`BlobStore.put`; Redis drops the blob itself after the latest ``keep_until``."""
        check_size(len(data))
        if len(data) <= PIECE_BYTES:
            if keep_until is None:
                self._call("set", self._key(key), data)
            else:
                self._call("eval", _SET, 1, self._key(key), data, keep_until)
            return
        with self._draft(data) as draft:
            self._call("eval", _SETTLE, 2, draft, self._key(key), keep_until or 0)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """See :meth:`BlobStore.put_if_absent`: ``SET NX``, or ``RENAMENX`` where it is large."""
        check_size(len(data))
        if len(data) <= PIECE_BYTES:
            return bool(self._call("set", self._key(key), data, nx=True))
        with self._draft(data) as draft:
            self._call("persist", draft)
            return bool(self._call("renamenx", draft, self._key(key)))

    def pieces(self, key: str) -> Iterator[bytes]:
        """See :meth:`BlobStore.pieces`."""
        start = 0
        while True:
            # GETRANGE reads no more than asked for, and answers b"" where there is nothing.
            piece = bytes(self._call("getrange", self._key(key), start, start + PIECE_BYTES - 1))
            if piece:
                yield piece
            start += len(piece)
            if len(piece) < PIECE_BYTES:
                break
        if start == 0 and not self.exists(key):
            raise missing()

    def get(self, key: str) -> bytes:
        """See :meth:`BlobStore.get`."""
        return whole(self.pieces(key))

    def exists(self, key: str) -> bool:
        """See :meth:`BlobStore.exists`."""
        return bool(self._call("exists", self._key(key)))

    def list(self, prefix: str) -> Iterator[str]:
        """See :meth:`BlobStore.list`."""
        start = self._key(folder_of(prefix)) + "/"
        try:  # SCAN may name a key twice
            found = set(self._client.scan_iter(match=start + "*", count=500))
        except (RedisError, OSError):
            raise unavailable() from None
        # Others may write there too: what is no key of ours, maybe not even text, is no blob.
        names = (name.removeprefix(b"blob:").decode("ascii", "replace") for name in found)
        yield from (name for name in names if is_key(name))

    def delete(self, key: str) -> None:
        """See :meth:`BlobStore.delete`."""
        self._call("delete", self._key(key))

    @contextmanager
    def _draft(self, data: bytes) -> Iterator[str]:
        """Yield the name of a string that was written piece by piece and is gone afterwards, or renamed."""
        name = f"blob-draft:{secrets.token_hex(16)}"
        try:
            view = memoryview(data)
            for start in range(0, len(data), PIECE_BYTES):
                self._call("append", name, bytes(view[start : start + PIECE_BYTES]))
                self._call("expire", name, DRAFT_S)
            yield name
        finally:
            with suppress(DeliveryError):
                self._call("delete", name)

    def _call(self, name: str, *arguments: object, **options: object) -> Any:
        try:
            return getattr(self._client, name)(*arguments, **options)
        except OutOfMemoryError:
            raise full() from None
        except (RedisError, OSError):
            raise unavailable() from None

    def _key(self, key: str) -> str:
        return "blob:" + check_key(key)
