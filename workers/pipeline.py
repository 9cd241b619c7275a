"""The way of a job through a worker: check, open, run, receipt, seal.

Pure but for the engine and the clocks it is given: it takes a pack and returns
what is to be published. Every job whose header can be read gets exactly one
signed outcome; whatever goes wrong with one job stays with that job, and an
error never says more than a code.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, runtime_checkable

from ..receipts.outcome import Status
from ..wire.encoding import sha256
from ..wire.errors import EngineError, Error, MalformedError
from ..wire.generation import GenerateParameters, Scalar
from ..wire.header import JobHeader, ReplyHeader
from ..wire.job import Job, Output, Response, Result
from ..wire.keys import PublicKey
from ..wire.opening import Opener
from ..wire.pack import SealedJob, SealedReply, decode_jobs
from ..wire.sealing import Sealer
from .cancel import CANCELLED
from .identity import WorkerIdentity
from .meter import Meter
from .streaming import ChunkStream, ChunkStreams

#: Stored replies for redeliveries: at most so many, and so many bytes.
REPLAY_JOBS: Final = 8192
REPLAY_BYTES: Final = 64 << 20
REPLY_SEALERS: Final = 256


class Runner(Protocol):
    """Runs opened jobs; one bad job never fails its neighbours."""

    def __call__(self, jobs: Sequence[Job]) -> Sequence[tuple[Output, ...] | EngineError]:
        """Return, for each job in order, its outputs or what went wrong with it."""


@runtime_checkable
class StreamingRunner(Protocol):
    """A runner whose texts can be had while they are made."""

    def stream(
        self, jobs: Sequence[Job], sinks: Sequence[Callable[[int, str], None] | None]
    ) -> Sequence[tuple[Output, ...] | EngineError]:
        """Run jobs; pieces of text go to a job's sink, with the place of their input."""


class JobKeys(Protocol):
    """Knows which keys may open jobs."""

    def refusal(self, key_id: bytes, since: float) -> str:
        """Return why no job of this key is opened, as a code; ``""`` when it may be tried.

        :param since: when the message was taken, monotonic seconds.
        :raises DeliveryError: that cannot be told now; the message must come again.
        """

    def opened(self, key_id: bytes, not_after: int) -> None:
        """Note a job that was opened with this key, and its deadline (Unix seconds)."""


class OpenersKeys:
    """Leaves it to the opener which keys may open."""

    def refusal(self, key_id: bytes, since: float) -> str:
        """See :class:`JobKeys`; refuses none."""
        return ""

    def opened(self, key_id: bytes, not_after: int) -> None:
        """See :class:`JobKeys`; notes nothing."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply and the queue it goes to."""

    reply_to: str
    sealed: SealedReply


@dataclass(slots=True)
class _Work:
    """One job on its way through the pipeline."""

    hash: bytes
    header: JobHeader
    request: bytes = b""
    job: Job | None = None
    reply: SealedReply | None = None


class Refusal(Exception):
    """A job that ends before it runs: its terminal status and stable code."""

    def __init__(self, status: Status, code: str) -> None:
        super().__init__(code)
        self.status: Status = status
        self.code = code


@dataclass
class Pipeline:
    """Answers packs for one worker. Safe for threads.

    :param unix: wall clock, Unix seconds. :param monotonic: seconds, for durations and rekeying.
    :param meter: is told of jobs, stages and outcomes. :param chunks: sends texts ahead of their results.
    :param cancelled: says whether a batch, by its id, was cancelled.
    """

    identity: WorkerIdentity
    opener: Opener
    runner: Runner
    unix: Callable[[], float]
    monotonic: Callable[[], float]
    keys: JobKeys = field(default_factory=OpenersKeys)
    meter: Meter = field(default_factory=Meter)
    chunks: ChunkStreams | None = None
    cancelled: Callable[[bytes], bool] = lambda _: False
    _finished: OrderedDict[bytes, SealedReply] = field(default_factory=OrderedDict)
    _finished_bytes: int = 0
    _sealers: OrderedDict[bytes, Sealer] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, pack: bytes) -> list[Reply]:
        """Run what a pack asks for and return one reply per job whose header can be read.

        :raises MalformedError: when the pack as a whole cannot be read.
        :raises DeliveryError: a key could not be looked for; the pack must come again.
        """
        since = self.monotonic()
        pool, sealed_jobs = decode_jobs(pack)
        self.meter.pack(len(sealed_jobs))
        try:
            works = [work for sealed in sealed_jobs if (work := self._read(pool, sealed, since)) is not None]
            self.meter.took("open", self.monotonic() - since)
            self._run([work for work in works if work.reply is None])
        finally:
            self.meter.pack_ended(len(sealed_jobs))
        return [Reply(work.header.reply_to, work.reply) for work in works if work.reply is not None]

    def give_up(self, pack: bytes, code: str) -> list[Reply]:
        """Return a signed ``failed`` for each job of a pack without opening or running any.

        :param code: why, a stable code.
        :raises MalformedError: when the pack as a whole cannot be read.
        """
        replies = []
        for sealed in decode_jobs(pack)[1]:
            try:
                work = _Work(sealed.hash, JobHeader.decode(sealed.header))
            except MalformedError:
                continue
            with self._lock:
                work.reply = self._finished.get(work.hash)
            if work.reply is None:
                self._finish(work, self._outcome(work, "failed", code))
            if work.reply is not None:
                replies.append(Reply(work.header.reply_to, work.reply))
        return replies

    @staticmethod
    def reply_to(sealed: SealedJob) -> str | None:
        """Return where a job's reply goes, or None where its header cannot be read."""
        try:
            return JobHeader.decode(sealed.header).reply_to
        except MalformedError:
            return None

    def forget(self) -> None:
        """Drop keys and stored replies (best effort)."""
        self.opener.forget()
        with self._lock:
            self._finished.clear()
            self._finished_bytes = 0
            self._sealers.clear()

    # ---------------------------------------------------------------- before

    def _read(self, pool: str, sealed: SealedJob, since: float) -> _Work | None:
        try:
            header = JobHeader.decode(sealed.header)
        except MalformedError:
            return None  # nobody to answer: the header holds the job id and the reply queue
        work = _Work(sealed.hash, header)
        with self._lock:
            work.reply = self._finished.get(work.hash)
        if work.reply is not None:
            return work
        try:
            self._open(work, pool, sealed, since)
        except Refusal as refusal:
            self._finish(work, self._outcome(work, refusal.status, refusal.code))
        return work

    def _open(self, work: _Work, pool: str, sealed: SealedJob, since: float) -> None:
        header = work.header
        if header.pool != self.identity.pool or pool != self.identity.pool:
            raise Refusal("rejected", "WRONG_POOL")
        now = self.unix()
        if header.not_after < now:
            raise Refusal("expired", "EXPIRED")
        if header.batch_id is not None and self.cancelled(header.batch_id):
            raise Refusal("cancelled", CANCELLED)
        if code := self.keys.refusal(header.key_id, since):
            raise Refusal("rejected", code)
        try:
            work.request = self.opener.open(sealed.header, sealed.sealed)
        except Error:
            raise Refusal("rejected", "CANNOT_OPEN") from None
        try:
            job = Job.decode(work.request)
        except MalformedError:
            raise Refusal("rejected", "MALFORMED_JOB") from None
        if job.not_after != header.not_after:
            raise Refusal("rejected", "DEADLINE_MISMATCH")
        self.keys.opened(header.key_id, header.not_after)
        if job.model != self.identity.model.id:
            raise Refusal("rejected", "WRONG_MODEL")
        if job.task not in self.identity.tasks:
            raise Refusal("rejected", "UNSUPPORTED_TASK")
        batch, index = job.batch, header.index
        if (batch is None) != (index is None) or (batch and index is not None and index >= batch.count):
            raise Refusal("rejected", "BATCH_MISMATCH")
        work.job = job

    # ------------------------------------------------------------------- run

    def _run(self, works: list[_Work]) -> None:
        jobs = [work.job for work in works if work.job is not None]
        if not jobs:
            return
        started = self.monotonic()
        try:
            answers = self._answers(works)
        except Exception:  # whatever an engine throws, each job still ends in a signed outcome
            answers = [EngineError("ENGINE_FAILED")] * len(jobs)
        ran = self.monotonic()
        elapsed_ms = round((ran - started) * 1000)
        for work, answer in zip(works, answers, strict=True):
            self._finish(work, self._answered(work, answer, elapsed_ms))
        self.meter.took("run", ran - started)
        self.meter.took("seal", self.monotonic() - ran)

    def _answers(self, works: list[_Work]) -> Sequence[tuple[Output, ...] | EngineError]:
        jobs = [work.job for work in works if work.job is not None]
        runner, chunks = self.runner, self.chunks
        if chunks is None or not isinstance(runner, StreamingRunner):
            return runner(jobs)
        streams: list[ChunkStream | None] = []
        answers: Sequence[tuple[Output, ...] | EngineError] = ()
        try:
            for work, job in zip(works, jobs, strict=True):
                streams.append(chunks.open(work.header, job))
            answers = runner.stream(jobs, [None if stream is None else stream.give for stream in streams])
            return answers
        finally:
            for place, stream in enumerate(streams):
                if stream is not None:
                    chunks.end(stream, whole=place < len(answers) and isinstance(answers[place], tuple))

    def _answered(
        self, work: _Work, answer: tuple[Output, ...] | EngineError, elapsed_ms: int
    ) -> SealedReply:
        if isinstance(answer, EngineError):
            return self._outcome(work, "failed", answer.code)
        try:
            return self._succeed(work, answer, elapsed_ms)
        except Error as error:  # an answer that is too large, a reply key that cannot be sealed to
            return self._outcome(work, "failed", error.code)

    def _succeed(self, work: _Work, outputs: tuple[Output, ...], elapsed_ms: int) -> SealedReply:
        job, identity = work.job, self.identity
        assert job is not None  # noqa: S101 - held by _run
        response = Response(
            job_id=work.header.job_id,
            model=identity.model.id,
            model_hash=identity.model.manifest_hash,
            task=job.task,
            outputs=outputs,
            engine=identity.engine,
            salt=job.salt,
            sampling=_sampling(job),
        ).encode()
        receipt = identity.receipt(
            request_hash=sha256(work.request),
            response_hash=sha256(response),
            nonce=job.nonce,
            now=int(self.unix()),
            execution_time_ms=elapsed_ms,
        )
        header = ReplyHeader(
            work.header.job_id,
            identity.pool,
            job.reply_key.key_id,
            work.header.batch_id,
            work.header.index,
        ).encode()
        sealed = self._sealer(job.reply_key).seal(header, Result(response, receipt).encode())
        outcome = self._sign(work, "succeeded", "", sha256(receipt))
        return SealedReply(work.header.job_id, outcome, header, sealed)

    # ----------------------------------------------------------------- after

    def _outcome(self, work: _Work, status: Status, code: str) -> SealedReply:
        return SealedReply(work.header.job_id, self._sign(work, status, code, None))

    def _sign(self, work: _Work, status: Status, code: str, receipt_hash: bytes | None) -> bytes:
        self.meter.outcome(work.header.job_id, status, code)
        return self.identity.outcome(
            header=work.header,
            job_hash=work.hash,
            status=status,
            code=code,
            receipt_hash=receipt_hash,
            now=int(self.unix()),
        )

    def _finish(self, work: _Work, reply: SealedReply) -> None:
        """Keep a job's reply; one that is kept already (by a copy in its pack or a thread) counts instead."""
        with self._lock:
            work.reply = self._finished.setdefault(work.hash, reply)
            if work.reply is not reply:
                return
            self._finished_bytes += _size(reply)
            while len(self._finished) > REPLAY_JOBS or self._finished_bytes > REPLAY_BYTES:
                self._finished_bytes -= _size(self._finished.popitem(last=False)[1])

    def _sealer(self, key: PublicKey) -> Sealer:
        with self._lock:
            sealer = self._sealers.get(key.key_id)
            if sealer is None:
                sealer = self._sealers[key.key_id] = Sealer(key, "result", monotonic=self.monotonic)
                while len(self._sealers) > REPLY_SEALERS:
                    self._sealers.popitem(last=False)
            self._sealers.move_to_end(key.key_id)
            return sealer


def _sampling(job: Job) -> dict[str, Scalar | list[Scalar]]:
    """Return the record of the parameters as applied; none is applied otherwise than it was asked for."""
    if job.task != "generate":
        return {}
    return GenerateParameters.read(job.parameters, len(job.inputs)).effective()


def _size(reply: SealedReply) -> int:
    return len(reply.outcome) + (0 if reply.sealed is None else len(reply.sealed.ciphertext))
