"""A worker and a client in one process, with real sealing, evidence and receipts but no broker.

The host sits between them: each test plays it and does to the messages what a host can do.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ephemeralml.attestation.appraise import appraise
from ephemeralml.attestation.attest.composite import BundleAttester
from ephemeralml.attestation.policy import TrustPolicy
from ephemeralml.attestation.simulated import DevelopmentRoot, SimulatedAttester, development_pcrs
from ephemeralml.attestation.verify import endorsements_for, verify_evidence
from ephemeralml.broker_config.blobs import LocalBlobStore
from ephemeralml.broker_config.settings import broker_settings
from ephemeralml.producer.client import Client
from ephemeralml.producer.inputs import InputItem
from ephemeralml.producer.judge import JobResult, Judge
from ephemeralml.producer.lab import laboratory_policy
from ephemeralml.producer.ticket import Ticket
from ephemeralml.producer.trust import VerifiedFleet
from ephemeralml.wire.announcement import (
    Announcement,
    AnnouncementBody,
    ModelIdentity,
    archive_name,
    newest_prefix,
)
from ephemeralml.wire.encoding import sha256
from ephemeralml.wire.errors import EngineError
from ephemeralml.wire.job import Embedding, EngineInfo, Job, Output
from ephemeralml.wire.opening import Opener
from ephemeralml.wire.pack import SealedReply
from ephemeralml.wire.private_keys import PrivateKey
from ephemeralml.workers.identity import WorkerIdentity
from ephemeralml.workers.pipeline import Pipeline, Reply

MODEL = ModelIdentity("all-MiniLM-L6-v2", "1.0.0", sha256(b"a manifest"))
ENGINE = EngineInfo("noop", "noop", "f32", "1")
IMAGE = "an-image"
POOL = "minilm"


def run(jobs: Sequence[Job]) -> list[tuple[Output, ...] | EngineError]:
    """Answer each input with a vector made of its length; refuse jobs that ask for failure."""
    answers: list[tuple[Output, ...] | EngineError] = []
    for job in jobs:
        if job.parameters.get("fail"):
            answers.append(EngineError("ENGINE_BAD_PARAMETERS", "asked to"))
        else:
            answers.append(tuple(Embedding(len(item).to_bytes(4, "little"), 1, False) for item in job.inputs))
    return answers


@dataclass
class Stand:
    """One pool with workers, and a client that trusts it."""

    folder: Path
    pool: str = POOL
    now: float = field(default_factory=lambda: float(int(time.time())))
    runs: int = 0
    tickets: list[Ticket] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.root = DevelopmentRoot.create()
        self.policy: TrustPolicy = laboratory_policy(
            self.root.fingerprint, IMAGE, MODEL.id, MODEL.manifest_hash
        )
        self.blobs = LocalBlobStore(self.folder / "blobs")
        self.fleet_key = PrivateKey.generate()
        self.pipeline = self.worker()
        self.client = Client(
            broker_settings(state_dir=self.folder / "state"),
            self.blobs,
            self.policy,
            endorsements_for(self.policy),
            lambda: self.now,
        )

    def worker(self, *, image: str = IMAGE, announced_key: bytes | None = None) -> Pipeline:
        """Announce one more worker and return its pipeline."""
        attester = SimulatedAttester(self.root, development_pcrs(image))
        receipt_key = Ed25519PrivateKey.generate()
        public = receipt_key.public_key().public_bytes_raw()
        worker_id = os.urandom(16)
        body = AnnouncementBody(
            self.pool,
            worker_id,
            self.fleet_key.public_key,
            1,
            announced_key or public,
            MODEL,
            ("embed",),
            ENGINE,
            int(self.now),
            int(self.now) + 3600,
            "evaluation",
        ).encode()
        bundle = BundleAttester(attester).bundle(public_key=public, user_data=sha256(body))
        evidence = bundle.evidence
        announcement = Announcement(body, bundle, b"no certificate here")
        self.blobs.put(archive_name(self.pool, bundle.evidence_hash), announcement.encode())
        self.blobs.put(newest_prefix(self.pool) + worker_id.hex(), announcement.encode())
        verified = verify_evidence(attester.platform, evidence, endorsements_for(self.policy), int(self.now))
        mode = (
            appraise(verified, self.policy, int(self.now)).security_mode if image == IMAGE else "evaluation"
        )
        identity = WorkerIdentity(
            self.pool,
            worker_id,
            "tests",
            receipt_key,
            MODEL,
            ENGINE,
            ("embed",),
            sha256(evidence),
            attester.measurements(),
            mode,
            self.policy.version,
        )

        def counted(jobs: Sequence[Job]) -> list[tuple[Output, ...] | EngineError]:
            self.runs += len(jobs)
            return run(jobs)

        return Pipeline(identity, Opener([self.fleet_key], "job"), counted, lambda: self.now, time.monotonic)

    def fleet(self) -> VerifiedFleet:
        """Verify the pool as the client does."""
        return self.client.trust_pool(self.pool)

    def plan(self, *items: InputItem, lifetime_s: int = 600, pack_jobs: int = 32) -> Ticket:
        """Seal items and return the ticket; ``ticket.pending_packs`` holds what the host would carry."""
        name = os.urandom(4).hex()
        ticket = self.client.plan(
            self.fleet(), items, self.folder / name, lifetime_s=lifetime_s, pack_jobs=pack_jobs
        )
        self.tickets.append(ticket)
        return ticket

    def close(self) -> None:
        """Close all tickets."""
        for ticket in self.tickets:
            ticket.close()

    def packs(self, ticket: Ticket) -> list[bytes]:
        """Return the packs of a ticket."""
        return list(ticket.pending_packs.values())

    def answer(self, ticket: Ticket) -> list[Reply]:
        """Let the worker answer every pack of a ticket."""
        return [reply for pack in self.packs(ticket) for reply in self.pipeline.answer(pack)]

    def judge(self, ticket: Ticket, reply: SealedReply) -> JobResult:
        """Judge one reply as the client does."""
        judge = Judge(ticket.head, self.client.trust, Opener([ticket.reply_key], "result"))
        return judge.judge(ticket.jobs[reply.job_id.hex()], reply, int(self.now))


def item(text: str = "a text", custom_id: str = "1", **parameters: bool | str | int) -> InputItem:
    """Return one input."""
    return InputItem(custom_id, (text,), dict(parameters))
