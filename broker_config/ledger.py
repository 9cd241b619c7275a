"""What is known of messages that were delivered more than once: starts and finished replies, per job.

A message that comes again was in the hands of a worker that died, or lost its lease.
One job of its pack may be what kills workers: so from the second delivery on, jobs run
one by one, each start is written down before it and each sealed reply after it. The
ledger lies in the untrusted blob store: who forges or deletes entries can make jobs run
again or end as failed, which who carries the messages can do anyway.
"""

from __future__ import annotations

from typing import Final

from ..wire.encoding import sha256
from .blobs import BlobStore
from .queues import jobs_queue

MAX_STARTS: Final = 1000


def message_id(message: bytes) -> str:
    """Return the id of a message: SHA-256 of its body, hexadecimal."""
    return sha256(message).hex()


class Ledger:
    """The ledger of one pool.

    :raises MalformedError: ``BAD_POOL``.
    """

    def __init__(self, blobs: BlobStore, pool: str) -> None:
        jobs_queue(pool)
        self._blobs = blobs
        self._pool = pool

    def start(self, message: str, job: bytes) -> int:
        """Write down that a job begins to run, and return for the how manieth time.

        :param message: a message's id. :param job: the job hash (spec/wire.md), 32 bytes.
        :raises DeliveryError: the blob store cannot be reached.
        """
        # Conditional puts count on every store alike.
        for number in range(1, MAX_STARTS):
            if self._blobs.put_if_absent(f"{self._job(message, job)}/start-{number}", b"-"):
                return number
        return MAX_STARTS

    def withdraw(self, message: str, job: bytes, number: int) -> None:
        """Take back a start: the job did not run after all.

        :param number: what :meth:`start` returned.
        :raises DeliveryError: the blob store cannot be reached.
        """
        self._blobs.delete(f"{self._job(message, job)}/start-{number}")

    def finish(self, message: str, job: bytes, reply: bytes) -> None:
        """Keep a job's sealed reply for the next delivery.

        :raises DeliveryError: the blob store cannot be reached.
        """
        self._blobs.put(f"{self._job(message, job)}/reply", reply)

    def reply(self, message: str, job: bytes) -> bytes | None:
        """Return the kept reply of a job, if there is one.

        :raises DeliveryError: the blob store cannot be reached.
        """
        name = f"{self._job(message, job)}/reply"
        return self._blobs.get(name) if self._blobs.exists(name) else None

    def forget(self, message: str) -> None:
        """Drop all that is known of a message.

        :raises DeliveryError: the blob store cannot be reached.
        """
        for name in list(self._blobs.list(f"{self._message(message)}/")):
            self._blobs.delete(name)

    def _message(self, message: str) -> str:
        return f"ledger/{self._pool}/{message}"

    def _job(self, message: str, job: bytes) -> str:
        return f"{self._message(message)}/{job.hex()}"
