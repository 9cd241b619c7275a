"""Collects replies: checks what can be checked without a key, stores each once, then acknowledges.

What a hostile broker could do here, and what holds against it:

1. invent replies: an outcome must be signed by a worker that announced itself (:mod:`.worker_keys`);
2. swap or replay replies: the outcome names job, batch, index and pool, and the job's hash must be that of
   the sealed job that was uploaded, so that an answer to an altered job does not count either;
3. flood: a message is bounded in size, one that is not ours is dropped, and at most one batch of messages is
   in memory; a flood costs time, no memory and no place in the store;
4. drop: packs that stay unanswered are submitted again (:mod:`.dispatch`).
"""

from __future__ import annotations

import hmac
import logging
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection, select

from ....broker_config.blobs import BlobStore
from ....broker_config.replies import Delivery
from ....receipts.outcome import MAX_OUTCOME_BYTES, Outcome, peek_outcome
from ....wire.chunk import is_chunk
from ....wire.cose import decode_sign1, sig_structure, verify_ed25519
from ....wire.errors import Error, MalformedError, VerificationError
from ....wire.header import JobHeader, ReplyHeader
from ....wire.pack import SealedReply, decode_jobs
from ..store import Store, batches, events, replies
from ..store.models import jobs as job_table
from ..store.models import packs as pack_table
from ..store.replies import Reply
from ..webhooks import endpoints
from .messages import read_replies

LOG: Final = logging.getLogger("ephemeralml.relay")
#: Replies stored with one call.
MAX_AT_ONCE: Final = 1024
#: Hashes of sealed jobs are kept for so many packs.
KEPT_PACKS: Final = 512
LISTENING_SECONDS: Final = 2.0
_LOOKUP: Final = 500


@dataclass
class JobHashes:
    """Hashes of the sealed jobs of a batch, by index, from the packs that were uploaded.

    A pack is read once; it is gone from the store when all its jobs have ended.
    """

    _packs: OrderedDict[tuple[int, int], dict[int, bytes]] = field(default_factory=OrderedDict)

    def keep(self, batch: int, number: int, data: bytes) -> dict[int, bytes]:
        """Take a pack's bytes and return its jobs' hashes."""
        found: dict[int, bytes] = {}
        for job in decode_jobs(data)[1]:
            index = JobHeader.decode(job.header).index
            if index is not None:
                found[index] = job.hash
        self._packs[batch, number] = found
        while len(self._packs) > KEPT_PACKS:
            self._packs.popitem(last=False)
        return found

    def of(self, connection: Connection, batch: int, indexes: Iterable[int]) -> dict[int, bytes]:
        """Return the hashes of jobs that have not ended."""
        wanted = sorted(set(indexes))
        found: dict[int, bytes] = {}
        for start in range(0, len(wanted), _LOOKUP):
            some = wanted[start : start + _LOOKUP]
            near = job_table.c.index.between(some[0], some[-1]) & job_table.c.index.in_(some)
            still = (job_table.c.batch == batch) & near & job_table.c.status.is_(None)
            for number in connection.execute(select(job_table.c.pack).where(still).distinct()).scalars():
                found |= self._packs.get((batch, number)) or self._read(connection, batch, number)
        return found

    def _read(self, connection: Connection, batch: int, number: int) -> dict[int, bytes]:
        this = (pack_table.c.batch == batch) & (pack_table.c.number == number)
        data = connection.execute(select(pack_table.c.data).where(this)).scalar()
        return {} if data is None else self.keep(batch, number, bytes(data))


@dataclass
class Collector:
    """Takes messages of the gateway's reply queue into the store. For one thread.

    :param key_of: finds a worker's receipt key by pool and evidence. :param now: wall clock, Unix seconds.
    """

    store: Store
    blobs: BlobStore
    key_of: Callable[[str, bytes], bytes]
    now: Callable[[], float]
    stored: int = field(default=0, init=False)
    refused: int = field(default=0, init=False)
    _hashes: JobHashes = field(default_factory=JobHashes, init=False)
    _listening: dict[int, tuple[frozenset[str], float]] = field(default_factory=dict, init=False)

    def take(self, deliveries: Sequence[Delivery]) -> int:
        """Store what messages bring, then acknowledge them; return how many replies were new.

        :raises DeliveryError: store, blob store or broker cannot be used: nothing is lost, it comes again.
        """
        arrived: dict[bytes, list[tuple[Outcome, SealedReply]]] = defaultdict(list)
        for delivery in deliveries:
            for outcome, reply in self._read(delivery.body):
                assert outcome.batch_id is not None  # noqa: S101 - held by _read
                arrived[outcome.batch_id].append((outcome, reply))
        new = sum(self._store(batch_id, found) for batch_id, found in arrived.items())
        for delivery in deliveries:
            delivery.ack()
        return new

    def _read(self, body: bytes) -> list[tuple[Outcome, SealedReply]]:
        if is_chunk(body):  # a batch's texts come with their results
            return []
        try:
            pool, found = read_replies(self.blobs, body)
        except Error as error:
            if error.retriable:
                raise
            self._refuse(error)
            return []
        good: list[tuple[Outcome, SealedReply]] = []
        for reply in found:
            try:
                good.append((_checked(pool, reply), reply))
            except Error as error:
                self._refuse(error)
        return good

    def _store(self, batch_id: bytes, arrived: list[tuple[Outcome, SealedReply]]) -> int:
        with self.store.reading() as connection:
            number = batches.by_batch_id(connection, batch_id)
            batch = None if number is None else batches.get(connection, number)
            if batch is None:
                self.refused += len(arrived)
                return 0
            hashes = self._hashes.of(connection, batch.id, (outcome.index or 0 for outcome, _ in arrived))
        good: dict[int, Reply] = {}
        for outcome, reply in arrived:
            index = outcome.index or 0
            if index not in hashes or index in good:
                continue  # it has ended already, or the batch has no such job
            try:
                self._judge(batch.pool, outcome, reply, hashes[index])
            except Error as error:
                if error.retriable:
                    raise
                self._refuse(error)
                continue
            good[index] = Reply(index, outcome.status, outcome.code, reply)
        new = 0
        sound = list(good.values())
        for start in range(0, len(sound), MAX_AT_ONCE):
            with self.store.transaction() as connection:
                some = replies.record(connection, batch.id, sound[start : start + MAX_AT_ONCE], self.now())
                self._announce(connection, batch.id, batch.tenant_id, some)
            new += len(some)
        self.stored += new
        return new

    def _judge(self, pool: str, outcome: Outcome, reply: SealedReply, job_hash: bytes) -> None:
        if outcome.pool != pool:
            raise VerificationError("WRONG_POOL", "the outcome is of another pool")
        if not hmac.compare_digest(outcome.job_hash, job_hash):
            raise VerificationError("OUTCOME_MISMATCH", "the outcome is of another sealed job")
        # The same bytes that peek_outcome has read whole: only their signature is left to check.
        signed = decode_sign1(reply.outcome, max_bytes=MAX_OUTCOME_BYTES)
        key = self.key_of(pool, outcome.attestation_doc_hash)
        verify_ed25519(key, sig_structure(signed.protected_bytes, signed.payload), signed.signature)

    def _announce(self, connection: Connection, batch: int, tenant_id: int, new: Sequence[Reply]) -> None:
        """Leave the jobs' events in the outbox, where anybody listens to them."""
        now = self.now()
        wanted, until = self._listening.get(tenant_id, (frozenset(), 0.0))
        if now >= until:
            wanted = endpoints.wants(connection, tenant_id)
            self._listening[tenant_id] = (wanted, now + LISTENING_SECONDS)
        rows = [
            {
                "tenant_id": tenant_id,
                "type": kind,
                "batch": batch,
                "index": reply.index,
                "data": None,
                "created_at": now,
            }
            for reply in new
            if (kind := "job.completed" if reply.status == "succeeded" else "job.failed") in wanted
        ]
        events.add_many(connection, rows)

    def _refuse(self, error: Error) -> None:
        self.refused += 1
        if self.refused.bit_count() == 1:  # the first, second, fourth, …: a flood must not fill the log
            LOG.warning("replies refused so far: %d, the last one: %s", self.refused, error.code)


def _checked(pool: str, reply: SealedReply) -> Outcome:
    """Return a reply's outcome when the reply agrees with itself.

    :raises MalformedError: :raises VerificationError: it does not.
    """
    outcome = peek_outcome(reply.outcome)
    if outcome.batch_id is None or outcome.index is None:
        raise MalformedError("NOT_OF_A_BATCH", "a reply of no batch")
    if (outcome.job_id, outcome.pool) != (reply.job_id, pool):
        raise VerificationError("OUTCOME_MISMATCH", "the outcome is of another job")
    if (outcome.status == "succeeded") != (reply.header is not None and reply.sealed is not None):
        raise VerificationError("RESULT_MISSING", "a success has a result, nothing else has one")
    if reply.header is not None:
        header = ReplyHeader.decode(reply.header)
        stated = (header.job_id, header.pool, header.batch_id, header.index)
        if stated != (outcome.job_id, outcome.pool, outcome.batch_id, outcome.index):
            raise VerificationError("RESULT_MISMATCH", "the result is of another job")
    return outcome
