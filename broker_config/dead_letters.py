"""Dead letters: messages that no worker can answer, kept for an operator.

They lie in the blob store under ``dead/<pool>/<message id>``, on every broker alike: a
broker's own dead-letter queue drops the reason, and Redis has none. A dead letter holds
what the message held, ciphertext.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from ..wire.encoding import decode, encode
from ..wire.errors import MalformedError
from ..wire.fields import Fields
from .blobs import MAX_BLOB_BYTES, BlobStore
from .ledger import message_id
from .queues import jobs_queue

VERSION: Final = 1


@dataclass(frozen=True)
class DeadLetter:
    """A message that was given up.

    :param message: its body. :param code: why, a stable code. :param deliveries: how often it was delivered.
    :param died_at: Unix seconds. :param jobs: how many jobs ended as failed with it.
    """

    message: bytes = field(repr=False)
    code: str
    deliveries: int
    died_at: int
    jobs: int

    @property
    def id(self) -> str:
        """SHA-256 of the message, hexadecimal."""
        return message_id(self.message)

    def encode(self) -> bytes:
        """Return the stored form."""
        return encode(
            {1: VERSION, 2: self.message, 3: self.code, 4: self.deliveries, 5: self.died_at, 6: self.jobs}
        )

    @classmethod
    def decode(cls, data: bytes) -> DeadLetter:
        """Read the stored form.

        :raises MalformedError: it is anything else.
        """
        fields = Fields(decode(data, max_bytes=MAX_BLOB_BYTES), "dead letter", range(1, 7))
        fields.version(1, VERSION)
        return cls(
            message=fields.octets(2, 0, MAX_BLOB_BYTES),
            code=fields.text(3, 1, 64),
            deliveries=fields.uint(4),
            died_at=fields.uint(5),
            jobs=fields.uint(6),
        )


class DeadLetters:
    """The dead letters of one pool.

    :raises MalformedError: ``BAD_POOL``.
    """

    def __init__(self, blobs: BlobStore, pool: str) -> None:
        jobs_queue(pool)
        self._blobs = blobs
        self._prefix = f"dead/{pool}/"

    def add(self, letter: DeadLetter) -> None:
        """Keep a letter; the same message twice is one letter.

        :raises DeliveryError: the blob store cannot be reached.
        """
        self._blobs.put(self._prefix + letter.id, letter.encode())

    def list(self) -> Iterator[DeadLetter]:
        """Yield all letters; what is not one is passed over.

        :raises DeliveryError: the blob store cannot be reached.
        """
        for name in self._blobs.list(self._prefix):
            try:
                yield DeadLetter.decode(self._blobs.get(name))
            except MalformedError:
                continue

    def get(self, letter: str) -> DeadLetter:
        """Return the letter of a message's id.

        :raises DeliveryError: ``BLOB_MISSING``, or the blob store cannot be reached.
        :raises MalformedError: the stored letter is none, or the id is not of its form.
        """
        return DeadLetter.decode(self._blobs.get(self._prefix + letter))

    def remove(self, letter: str) -> None:
        """Drop a letter.

        :raises DeliveryError: the blob store cannot be reached.
        """
        self._blobs.delete(self._prefix + letter)
