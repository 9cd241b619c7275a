"""A pool behind a real broker: one worker in this process, and the host that stands between, played by tests.

Evidence, sealing, outcomes and receipts are real. ``Host.meddle`` may do to replies what a host can do.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from kombu import Consumer, Exchange, Queue

from ephemeralml.attestation.appraise import appraise
from ephemeralml.attestation.attest.composite import BundleAttester
from ephemeralml.attestation.policy import TrustPolicy
from ephemeralml.attestation.policy_source import PolicyInForce
from ephemeralml.attestation.simulated import DevelopmentRoot, SimulatedAttester, development_pcrs
from ephemeralml.attestation.verify import endorsements_for, verify_evidence
from ephemeralml.broker_config.blobs import LocalBlobStore, get_content
from ephemeralml.broker_config.queues import jobs_queue
from ephemeralml.broker_config.replies import ReplyPublisher, open_connection
from ephemeralml.broker_config.serializer import CONTENT_TYPE
from ephemeralml.broker_config.settings import BrokerSettings
from ephemeralml.producer.client import Client
from ephemeralml.producer.lab import laboratory_policy
from ephemeralml.wire.announcement import (
    Announcement,
    AnnouncementBody,
    ModelIdentity,
    archive_name,
    newest_prefix,
)
from ephemeralml.wire.encoding import sha256
from ephemeralml.wire.errors import AppraisalError, EngineError
from ephemeralml.wire.generation import GenerateParameters
from ephemeralml.wire.job import Completion, Embedding, EngineInfo, Job, Output, TokenLogprob
from ephemeralml.wire.opening import Opener
from ephemeralml.wire.pack import PackReference, decode_message, encode_message, encode_replies
from ephemeralml.wire.private_keys import PrivateKey
from ephemeralml.workers.engines.base import EmbedRequest
from ephemeralml.workers.engines.noop_engine import NoopEngine
from ephemeralml.workers.identity import WorkerIdentity
from ephemeralml.workers.pipeline import Pipeline, Reply

MODEL = ModelIdentity("tiny-model", "1.0.0", sha256(b"a manifest"))
ENGINE = EngineInfo("noop", "noop", "f32", "1")
IMAGE = "an-image"
POOL = "tiny"


@dataclass
class Switch:
    """A policy source that a test may change or end."""

    policy: TrustPolicy
    ended: bool = False

    def in_force(self, now: float) -> PolicyInForce:
        """See PolicySource."""
        return PolicyInForce(self.current(now), self.policy.version, signed=True, expires=int(now) + 60)

    def current(self, now: float) -> TrustPolicy:
        """See PolicySource."""
        if self.ended:
            raise AppraisalError("POLICY_EXPIRED", "the policy has ended")
        return self.policy


def run(jobs: Sequence[Job]) -> list[tuple[Output, ...] | EngineError]:
    """Embed as the no-op engine does; generate by saying the conversation back."""
    return [_generate(job) if job.task == "generate" else _embed(job) for job in jobs]


def _embed(job: Job) -> tuple[Output, ...] | EngineError:
    if job.parameters.get("prompt") == "fail":
        return EngineError("ENGINE_FAILED", "asked to")
    texts = tuple(item for item in job.inputs if isinstance(item, str))
    values: dict[str, Any] = dict(job.parameters)
    try:
        (result,) = NoopEngine().run([EmbedRequest(texts, **values)])
    except EngineError as error:
        return error
    rows = zip(result.vectors, result.tokens, result.truncated, strict=True)
    return tuple(Embedding(vector, tokens, truncated) for vector, tokens, truncated in rows)


def _generate(job: Job) -> tuple[Output, ...]:
    parameters = GenerateParameters.read(job.parameters, len(job.inputs))
    outputs = []
    for item in job.inputs:
        assert not isinstance(item, str)
        words = [f"{turn.role}:{turn.content} " for turn in item]
        kept = words[: parameters.max_tokens]
        logprobs = tuple(TokenLogprob(word.encode(), -0.5, ((word.encode(), -0.5),)) for word in kept)
        outputs.append(
            Completion(
                "".join(kept),
                "stop" if len(kept) == len(words) else "length",
                len(words),
                len(kept),
                parameters.seed or 0,
                logprobs if parameters.logprobs else None,
            )
        )
    return tuple(outputs)


@dataclass
class Host:
    """One pool with a worker thread; a context manager.

    :param meddle: takes the honest replies of a pack and returns what is published.
    :param ahead: of the machine's clock, in seconds.
    :param deaf: while set, messages are taken and thrown away.
    """

    folder: Path
    settings: BrokerSettings
    tasks: tuple[Any, ...] = ("embed", "generate")
    pool: str = POOL
    ahead: float = 0.0
    meddle: Callable[[list[Reply]], list[Reply]] = lambda replies: replies
    deaf: bool = False
    packs: list[bytes] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.root = DevelopmentRoot.create()
        self.switch = Switch(laboratory_policy(self.root.fingerprint, IMAGE, MODEL.id, MODEL.manifest_hash))
        self.blobs = LocalBlobStore(self.folder / "blobs")
        self.fleet_key = PrivateKey.generate()
        self.pipeline = self.worker()
        self.publisher = ReplyPublisher(self.settings)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="host", daemon=True)

    def now(self) -> float:
        """The clock of worker and client, Unix seconds."""
        return time.time() + self.ahead

    def client(self) -> Client:
        """A client that trusts this pool's worker."""
        return Client(self.settings, self.blobs, self.switch, endorsements_for(self.switch.policy), self.now)

    def worker(self, *, image: str = IMAGE, model: ModelIdentity = MODEL) -> Pipeline:
        """Announce one more worker and return its pipeline."""
        attester = SimulatedAttester(self.root, development_pcrs(image))
        receipt_key, worker_id, now = Ed25519PrivateKey.generate(), os.urandom(16), int(self.now())
        public = receipt_key.public_key().public_bytes_raw()
        body = AnnouncementBody(
            self.pool, worker_id, self.fleet_key.public_key, 1, public, model, self.tasks, ENGINE,
            now, now + 3600, "evaluation",
        ).encode()  # fmt: skip
        bundle = BundleAttester(attester).bundle(public_key=public, user_data=sha256(body))
        announcement = Announcement(body, bundle, b"no certificate here").encode()
        self.blobs.put(archive_name(self.pool, bundle.evidence_hash), announcement)
        self.blobs.put(newest_prefix(self.pool) + worker_id.hex(), announcement)
        policy = self.switch.policy
        verified = verify_evidence(attester.platform, bundle.evidence, endorsements_for(policy), now)
        mode = appraise(verified, policy, now).security_mode if image == IMAGE else "evaluation"
        identity = WorkerIdentity(
            self.pool, worker_id, "tests", receipt_key, model, ENGINE, self.tasks,
            sha256(bundle.evidence), attester.measurements(), mode, policy.version,
        )  # fmt: skip
        return Pipeline(identity, Opener([self.fleet_key], "job"), self._run, self.now, time.monotonic)

    def _run(self, jobs: Sequence[Job]) -> list[tuple[Output, ...] | EngineError]:
        self.jobs += jobs
        return run(jobs)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._thread.join()
        self.publisher.close()

    def stop(self) -> None:
        """Take no further message."""
        self._stopping.set()

    def _work(self) -> None:
        name = jobs_queue(self.pool)
        queue = Queue(name, Exchange(""), routing_key=name, no_declare=True)
        with open_connection(self.settings, lease=name) as connection:
            channel = connection.default_channel
            Consumer(channel, [queue], accept=[CONTENT_TYPE], on_message=self._take).consume()
            while not self._stopping.is_set():
                try:
                    connection.drain_events(timeout=0.1)
                except TimeoutError:
                    continue

    def _take(self, message: Any) -> None:
        (body,) = message.decode()[0]
        pack = decode_message(body)
        if isinstance(pack, PackReference):
            pack = get_content(self.blobs, pack.digest.hex())
        self.packs.append(pack)
        if not self.deaf:
            for reply in self.meddle(self.pipeline.answer(pack)):
                self.post(reply)
        message.ack()

    def post(self, reply: Reply) -> None:
        """Publish one reply."""
        body = encode_message(encode_replies(self.pool, [reply.sealed]))
        self.publisher.publish(reply.reply_to, body)
