"""A worker's hand: announces itself, signs real outcomes and statements, computes nothing."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ephemeralml.attestation.attest.composite import BundleAttester
from ephemeralml.attestation.simulated import DevelopmentRoot, SimulatedAttester, development_pcrs
from ephemeralml.broker_config import BrokerSettings
from ephemeralml.broker_config.blobs import BlobStore, get_content
from ephemeralml.broker_config.replies import ReplyPublisher
from ephemeralml.producer.gateway.store import Store, batches, staging
from ephemeralml.producer.gateway.store.staging import StagedPack, Upload
from ephemeralml.receipts.outcome import Outcome, Status, make_outcome
from ephemeralml.wire.announcement import Announcement, AnnouncementBody, ModelIdentity, archive_name
from ephemeralml.wire.encoding import decode, sha256
from ephemeralml.wire.header import JobHeader, ReplyHeader
from ephemeralml.wire.job import EngineInfo
from ephemeralml.wire.pack import (
    PackReference,
    SealedJob,
    SealedReply,
    decode_jobs,
    decode_message,
    encode_jobs,
    encode_message,
    encode_replies,
)
from ephemeralml.wire.private_keys import PrivateKey
from ephemeralml.wire.sealing import Sealed
from ephemeralml.workers.identity import WorkerIdentity
from ephemeralml.workers.seal_batch import SealBatch

from ...delivery.host_redis import RedisHost
from ..uploads import POOL, SealedBatch

#: Of a message on Redis: version, delivery tag, task id; then the task's arguments.
HEAD_BYTES = 1 + 36 + 32
ROOT = DevelopmentRoot.create()
IMAGE = "an-image"


@dataclass
class Hand:
    """Answers jobs with signed outcomes; its key is announced in the blob store.

    :param status: how each job ends. :param now: Unix seconds.
    """

    blobs: BlobStore
    status: Status = "succeeded"
    now: float = field(default_factory=time.time)
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    def __post_init__(self) -> None:
        attester = SimulatedAttester(ROOT, development_pcrs(IMAGE))
        public = self.key.public_key().public_bytes_raw()
        model, engine = ModelIdentity("m", "1", bytes(32)), EngineInfo("noop", "noop", "f32", "1")
        body = AnnouncementBody(
            POOL,
            os.urandom(16),
            PrivateKey.generate().public_key,
            1,
            public,
            model,
            ("embed",),
            engine,
            int(self.now),
            int(self.now) + 86_400,
            "evaluation",
        )
        bundle = BundleAttester(attester).bundle(public_key=public, user_data=sha256(body.encode()))
        self.evidence_hash = bundle.evidence_hash
        announcement = Announcement(body.encode(), bundle, b"no certificate here").encode()
        self.blobs.put(archive_name(POOL, self.evidence_hash), announcement)
        identity = WorkerIdentity(
            POOL,
            body.worker_id,
            "tests",
            self.key,
            model,
            engine,
            ("embed",),
            self.evidence_hash,
            attester.measurements(),
            "evaluation",
            "1",
        )
        self.seal = SealBatch(lambda: identity, self.blobs, lambda _: public, time.time)

    def reply(self, job: SealedJob, status: Status | None = None) -> SealedReply:
        """Answer one job."""
        header, status = JobHeader.decode(job.header), status or self.status
        good = status == "succeeded"
        outcome = Outcome(
            job_id=header.job_id,
            pool=header.pool,
            status=status,
            code="" if good else "CODE",
            iat=int(self.now),
            attestation_doc_hash=self.evidence_hash,
            job_hash=job.hash,
            receipt_hash=bytes(32) if good else None,
            batch_id=header.batch_id,
            index=header.index,
        )
        signed = make_outcome(outcome, self.key)
        if not good:
            return SealedReply(header.job_id, signed)
        back = ReplyHeader(header.job_id, header.pool, bytes(32), header.batch_id, header.index).encode()
        sealed = Sealed(b"recipient", os.urandom(12), os.urandom(64))
        return SealedReply(header.job_id, signed, back, sealed)

    def answer(self, pack: bytes, status: Status | None = None) -> bytes:
        """Answer a pack with a message."""
        return message([self.reply(job, status) for job in decode_jobs(pack)[1]])


def message(found: Sequence[SealedReply]) -> bytes:
    """Return a message of replies."""
    return encode_message(encode_replies(POOL, found))


class HandAtWork:
    """A hand in a thread, on a broker; takes messages in any order, some of them twice."""

    def __init__(self, hand: Hand, settings: BrokerSettings, reply_to: str) -> None:
        self._hand, self._settings, self._reply_to = hand, settings, reply_to
        self._host = RedisHost(settings, random.Random(1))  # noqa: S311 - breaks nothing here
        self._publisher = ReplyPublisher(settings)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.answered = 0

    def __enter__(self) -> HandAtWork:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)
        self._publisher.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            taken = self._host.take("jobs.", 16)
            if not taken:
                self._stop.wait(0.02)
            for _, item in taken:
                self._one(item)

    def _one(self, item: bytes) -> None:
        found = decode(item[HEAD_BYTES:], max_bytes=64 << 20)
        assert isinstance(found, list)
        argument = found[0][0]
        if self._hand.seal(argument):
            return
        pack = decode_message(argument)
        if isinstance(pack, PackReference):
            pack = get_content(self._hand.blobs, pack.digest.hex())
        answer = self._hand.answer(pack)
        self.answered += 1
        for _ in range(2 if self.answered % 7 == 0 else 1):
            self._publisher.publish(self._reply_to, answer)


def packs_of(batch: SealedBatch) -> list[bytes]:
    """Return a batch's packs."""
    jobs = [
        SealedJob(header.encode(), sealed) for header, sealed in zip(batch.headers, batch.sealed, strict=True)
    ]
    starts = range(0, batch.jobs, batch.pack_jobs)
    return [encode_jobs(POOL, jobs[start : start + batch.pack_jobs]) for start in starts]


def put_batch(store: Store, tenant_id: int, batch: SealedBatch) -> int:
    """Accept a batch and return the store's number of it."""
    upload = Upload(
        batch_id=batch.batch_id,
        pool=POOL,
        jobs=batch.jobs,
        window_s=batch.window_s,
        input_root=batch.input_root,
        metadata={},
        key=None,
    )
    staged: list[StagedPack] = []
    for place, pack in enumerate(packs_of(batch)):
        first = place * batch.pack_jobs
        rows = [
            (index, batch.headers[index].job_id, batch.custom_ids[index])
            for index in range(first, min(first + batch.pack_jobs, batch.jobs))
        ]
        staged.append(StagedPack(pack, rows))
    with store.transaction() as connection:
        number = staging.begin(connection, tenant_id, upload, batch.now)
        staging.add(connection, number, 0, staged, batch.now)
        staging.accept(connection, number, tenant_id, bytes(32), batch.now)
    return number


def state_of(store: Store, number: int) -> batches.Batch:
    """Return a batch."""
    with store.reading() as connection:
        found = batches.get(connection, number)
    assert found is not None
    return found
