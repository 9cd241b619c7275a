"""A session's way to one pool: the fleet it seals to, the sealer it reuses, the keys it opens with."""

from __future__ import annotations

import math
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final

from ..attestation.policy import TrustPolicy
from ..wire.errors import Error
from ..wire.job import Task
from ..wire.keys import PublicKey, SuiteName
from ..wire.opening import Opener
from ..wire.pack import SealedJob, encode_jobs
from ..wire.private_keys import PrivateKey
from ..wire.sealing import Sealer
from .batch import commit
from .client import Client
from .inputs import InputItem
from .judge import JobResult, Judge
from .planning import check_wanted
from .sealed_jobs import make_job, seal_job, split
from .stream import Delta, JobStream
from .ticket import JobRecord, TicketHead
from .trust import VerifiedFleet

#: A reply key is used for new jobs so long, and dropped when the last of them has ended.
REPLY_KEY_SECONDS: Final = 3600.0


#: Batches whose jobs workers end as ``cancelled`` have a marker of this name in the blob store.
CANCEL_PREFIX: Final = "cancel"

Listener = Callable[[Delta], None]


@dataclass(slots=True, eq=False)
class Pack:
    """A pack that was made, for as long as a job of it is unanswered.

    :param head: what its jobs were sealed under. :param sent_at: Unix seconds.
    """

    head: TicketHead = field(repr=False)
    policy: TrustPolicy = field(repr=False)
    body: bytes = field(repr=False)
    jobs: tuple[bytes, ...]
    sent_at: float


@dataclass(slots=True, eq=False)
class Pending:
    """A sealed job that waits for its answer.

    :param not_after: Unix seconds. :param refusal: why the last answer to it was not accepted.
    """

    job_id: bytes
    record: JobRecord = field(repr=False)
    sealed: SealedJob = field(repr=False)
    head: TicketHead = field(repr=False)
    policy: TrustPolicy = field(repr=False)
    judge: Judge = field(repr=False)
    future: Future[JobResult] = field(repr=False)
    listener: Listener = field(repr=False)
    stream: JobStream | None = field(default=None, repr=False)
    pack: Pack | None = None
    refusal: Error | None = None

    @property
    def cancel_key(self) -> str | None:
        """Where a marker in the blob store tells workers not to run it; None where it has no batch."""
        batch_id = self.head.batch_id
        return None if batch_id is None else f"{CANCEL_PREFIX}/{self.head.pool}/{batch_id}"


@dataclass(frozen=True)
class _Era:
    """What jobs are sealed with for a while. Jobs under way keep its judge, and so its reply key, alive."""

    fleet: VerifiedFleet
    head: TicketHead
    reply_key: PublicKey
    sealer: Sealer
    judge: Judge
    chunks: Opener
    ends: float


class Lane:
    """Seals one pool's jobs for a session; :meth:`renew` may be called from any thread."""

    def __init__(self, client: Client, pool: str, reply_to: str, suite: SuiteName) -> None:
        self.client, self.pool = client, pool
        self._reply_to, self._suite = reply_to, suite
        self._era: _Era | None = None
        self._lock = threading.Lock()

    @property
    def known(self) -> VerifiedFleet | None:
        """The fleet as it was judged last."""
        era = self._era
        return None if era is None else era.fleet

    def renew(self) -> VerifiedFleet:
        """Return the fleet that new jobs are sealed to, judged again where policy, orders or time ask for it.

        :raises Error: as :meth:`.trust.Trust.fleet`: nothing may be sealed.
        """
        with self._lock:
            return self._current().fleet

    def _current(self) -> _Era:
        era, trust = self._era, self.client.trust
        fleet = trust.fleet(self.pool) if era is None else trust.renewed(era.fleet)
        if era is None or time.monotonic() >= era.ends or _other(era.fleet, fleet):
            era = self._new_era(fleet)
        elif fleet is not era.fleet:
            era = replace(era, fleet=fleet)
        self._era = era
        return era

    def _new_era(self, fleet: VerifiedFleet) -> _Era:
        seed = secrets.token_bytes(32)
        head = TicketHead(
            pool=self.pool,
            reply_to=self._reply_to,
            suite=self._suite,
            seed=seed.hex(),
            model=fleet.model.id,
            model_hash=fleet.model.manifest_hash.hex(),
            not_after=0,
            policy=fleet.policy.to_json(),
        )
        reply_key = PrivateKey.from_seed(self._suite, seed)
        return _Era(
            fleet,
            head,
            reply_key.public_key,
            Sealer(fleet.fleet_key, "job", monotonic=time.monotonic),
            Judge(head, self.client.trust, Opener([reply_key], "result")),
            Opener([reply_key], "chunk"),
            time.monotonic() + REPLY_KEY_SECONDS,
        )

    def seal(
        self,
        item: InputItem,
        task: Task,
        lifetime_s: int,
        future: Future[JobResult],
        listener: Listener = lambda _: None,
    ) -> Pending:
        """Seal one job to the fleet that :meth:`renew` found last.

        A job that may run long is a batch of its own, so that it can be cancelled alone; workers send no
        chunks for batches (spec/stream.md, section 3), so one that asks for chunks is not.

        :raises Error: nobody is trusted, or it cannot be encoded or sealed.
        """
        with self._lock:
            era = self._era or self._current()
        not_after = math.ceil(self.client.now()) + lifetime_s
        job = make_job(era.fleet, item, task, era.reply_key, not_after)
        head = replace(era.head, not_after=not_after)
        streams = item.parameters.get("stream") is True
        if task == "generate" and not streams:
            head = replace(head, batch_id=secrets.token_hex(16))
            job = replace(job, batch=commit([job]))
        record, sealed = seal_job(era.sealer, head, era.fleet, item.custom_id, job, 0)
        job_id = bytes.fromhex(record.job_id)
        stream = JobStream(record, self.pool, era.chunks) if streams else None
        return Pending(job_id, record, sealed, head, era.fleet.policy, era.judge, future, listener, stream)

    def packs(self, sealed: Sequence[Pending], pack_jobs: int) -> Iterator[tuple[list[Pending], Pack]]:
        """Yield jobs in packs, each told its pack.

        :param pack_jobs: most jobs of one pack, 1 to 1024.
        """
        entries = iter(sealed)
        for jobs in split([pending.sealed for pending in sealed], pack_jobs):
            part = list(islice(entries, len(jobs)))
            job_ids = tuple(pending.job_id for pending in part)
            body = encode_jobs(self.pool, jobs)
            pack = Pack(part[0].head, part[0].policy, body, job_ids, self.client.now())
            for pending in part:
                pending.pack = pack
            yield part, pack

    def message(self, pack: Pack) -> bytes:
        """Return the message that carries a pack, which goes to the blob store where it is large.

        :raises AppraisalError: as :meth:`.client.Client.push`: it was sealed to a key that is not wanted now.
        :raises DeliveryError: the blob store cannot be reached.
        """
        policy = self.client.trust.current()
        if policy is not pack.policy:
            check_wanted(self.client.trust, pack.head, [pack.body])
            pack.policy = policy
        return self.client.message(pack.body, pack.head.not_after)

    def forget(self) -> None:
        """Drop the keys (best effort)."""
        with self._lock:
            if self._era is not None:
                self._era.judge.opener.forget()
                self._era.chunks.forget()
            self._era = None


def _other(old: VerifiedFleet, new: VerifiedFleet) -> bool:
    """Whether jobs must be sealed, or their answers judged, in another way."""
    return (old.fleet_key, old.model, old.policy) != (new.fleet_key, new.model, new.policy)
