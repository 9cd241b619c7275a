"""Public headers: what untrusted parts may see of a job and of its reply.

A header is visible and authenticated (external AAD of the sealed message), so its
bytes travel as they were made and are never encoded again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from .encoding import decode, encode
from .errors import MalformedError
from .fields import Fields

VERSION: Final = 1
MAX_HEADER_BYTES: Final = 1024
MAX_BATCH_ITEMS: Final = 50_000
_POOL: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_REPLY_TO: Final = re.compile(r"reply\.[0-9a-f]{32}")


def check_pool(pool: str) -> str:
    """Return ``pool`` when it is a pool's name: 1 to 63 of ``a-z 0-9 -``, not starting with ``-``.

    :raises MalformedError: ``BAD_POOL``.
    """
    if _POOL.fullmatch(pool) is None:
        raise MalformedError("BAD_POOL", "a pool is named with a-z, 0-9 and '-', at most 63 of them")
    return pool


@dataclass(frozen=True, slots=True)
class JobHeader:
    """The public header of a job.

    :param job_id: 16 random bytes. :param key_id: 32 bytes, of the fleet key it is sealed to.
    :param reply_to: queue for the reply, ``reply.`` and 32 hexadecimal digits.
    :param not_after: deadline, Unix seconds. :param batch_id: 16 bytes. :param index: place in the batch.
    """

    job_id: bytes
    pool: str
    key_id: bytes
    reply_to: str
    not_after: int
    batch_id: bytes | None = None
    index: int | None = None

    def encode(self) -> bytes:
        """Return the deterministic CBOR of the header."""
        fields: dict[object, object] = {
            1: VERSION,
            2: self.job_id,
            3: self.pool,
            4: self.key_id,
            5: self.reply_to,
            6: self.not_after,
        }
        return encode(_with_batch(fields, self.batch_id, self.index))

    @classmethod
    def decode(cls, data: bytes) -> JobHeader:
        """Read a job's header.

        :raises MalformedError: when it is anything else.
        """
        fields = Fields(decode(data, max_bytes=MAX_HEADER_BYTES), "job header", range(1, 9))
        fields.version(1, VERSION)
        reply_to = fields.text(5, 1, 64)
        if _REPLY_TO.fullmatch(reply_to) is None:
            raise MalformedError("BAD_REPLY_TO", "reply_to is not a reply queue")
        return cls(
            job_id=fields.octets(2, 16),
            pool=check_pool(fields.text(3, 1, 63)),
            key_id=fields.octets(4, 32),
            reply_to=reply_to,
            not_after=fields.uint(6, minimum=1),
            batch_id=_batch_id(fields),
            index=_index(fields),
        )


@dataclass(frozen=True, slots=True)
class ReplyHeader:
    """The public header of a job's reply; ``key_id`` is the client's reply key."""

    job_id: bytes
    pool: str
    key_id: bytes
    batch_id: bytes | None = None
    index: int | None = None

    def encode(self) -> bytes:
        """Return the deterministic CBOR of the header."""
        fields: dict[object, object] = {1: VERSION, 2: self.job_id, 3: self.pool, 4: self.key_id}
        return encode(_with_batch(fields, self.batch_id, self.index))

    @classmethod
    def decode(cls, data: bytes) -> ReplyHeader:
        """Read a reply's header.

        :raises MalformedError: when it is anything else.
        """
        fields = Fields(decode(data, max_bytes=MAX_HEADER_BYTES), "reply header", (1, 2, 3, 4, 7, 8))
        fields.version(1, VERSION)
        return cls(
            job_id=fields.octets(2, 16),
            pool=check_pool(fields.text(3, 1, 63)),
            key_id=fields.octets(4, 32),
            batch_id=_batch_id(fields),
            index=_index(fields),
        )


def _with_batch(
    fields: dict[object, object], batch_id: bytes | None, index: int | None
) -> dict[object, object]:
    if (batch_id is None) != (index is None):
        raise MalformedError("MISSING_FIELD", "a header names batch and index together or neither")
    if batch_id is not None:
        fields |= {7: batch_id, 8: index}
    return fields


def _batch_id(fields: Fields) -> bytes | None:
    if (7 in fields) != (8 in fields):
        raise MalformedError("MISSING_FIELD", "a header names batch and index together or neither")
    return fields.octets(7, 16) if 7 in fields else None


def _index(fields: Fields) -> int | None:
    return fields.uint(8, maximum=MAX_BATCH_ITEMS - 1) if 8 in fields else None
