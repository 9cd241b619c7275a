"""A session: single jobs for callers that wait, over one reply queue that lives as long as the session.

A ticket outlives its client; a session does not, so nothing of it touches the disk. One thread
seals what has gathered and submits it in packs, another opens and judges what comes back by the
rules that tickets are judged by (:class:`.judge.Judge`). A caller gets a verified
:class:`.judge.JobResult` or an error, never an unverified answer::

    with Session(client, ["minilm"]) as session:
        result = session.ask(InputItem("1", ("A sentence.",)))       # or: await session.run(...)

Inputs are dropped as soon as they are sealed; reply keys live in memory only and are changed hourly.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Final, Self

from ..broker_config.blobs import get_content
from ..broker_config.replies import ReplyQueue, make_reply_queue
from ..broker_config.submit import Submitter
from ..wire.errors import (
    AppraisalError,
    ConfigurationError,
    DeliveryError,
    EndorsementsError,
    Error,
    FetchError,
    MalformedError,
    VerificationError,
)
from ..wire.job import Task
from ..wire.keys import SuiteName
from ..wire.pack import DEFAULT_PACK_JOBS, PackReference, SealedReply, decode_message, decode_replies
from .client import RESUBMIT_LEASES, Client
from .inputs import InputItem
from .judge import JobResult
from .lane import Lane, Listener, Pack, Pending
from .stream import Delta, job_of
from .trust import VerifiedFleet

LOG: Final = logging.getLogger("ephemeralml.session")

#: Between two looks at deadlines and at packs that stay unanswered.
SWEEP_SECONDS: Final = 0.5
#: A worker signs ``expired`` for what it takes too late; so long that signature is waited for.
GRACE_SECONDS: Final = 1.0
#: Jobs that may wait for an answer at once; more are refused.
MAX_PENDING: Final = 4096
#: Messages that could not be judged yet; older ones are given up, their packs are submitted again.
MAX_UNJUDGED: Final = 64
#: After a broker was lost, before it is tried again.
RETRY_SECONDS: Final = 1.0


@dataclass(slots=True)
class _Waiting:
    """A job that is not sealed yet."""

    item: InputItem
    task: Task
    pool: str
    lifetime_s: int
    future: Future[JobResult]
    listener: Listener


@dataclass
class SessionCounts:
    """What a session has done, in jobs; ``packs`` in packs, ``discarded`` in replies that did not verify."""

    submitted: int = 0
    answered: int = 0
    packs: int = 0
    resubmitted: int = 0
    discarded: int = 0


@dataclass
class Session:
    """Seals, submits, receives and judges single jobs in the background. Safe for threads and for asyncio.

    :param client: whose broker, trust and clock are used. :param pools: which may be asked, at least one.
    :param lifetime_s: seconds after which workers refuse a job, 1 to 86,400, unless said otherwise with it.
    :param pack_jobs: most jobs in one message, 1 to 1024. :param max_pending: more are refused.
    """

    client: Client
    pools: Sequence[str]
    suite: SuiteName = "xwing"
    lifetime_s: int = 60
    pack_jobs: int = DEFAULT_PACK_JOBS
    max_pending: int = MAX_PENDING
    counts: SessionCounts = field(default_factory=SessionCounts, init=False)

    def __post_init__(self) -> None:
        if not self.pools:
            raise ConfigurationError("NO_POOL", "a session needs at least one pool")
        self._reply_to = "reply." + secrets.token_hex(16)
        self._lanes = {pool: Lane(self.client, pool, self._reply_to, self.suite) for pool in self.pools}
        self._changed = threading.Condition()
        self._waiting: deque[_Waiting] = deque()
        self._pending: dict[bytes, Pending] = {}
        self._cancelled: deque[str] = deque()
        self._unjudged: deque[bytes] = deque(maxlen=MAX_UNJUDGED)
        self._closed = self._failed = False
        self._taken: list[_Waiting] = []
        self._threads: list[threading.Thread] = []

    # ------------------------------------------------------------------ life

    def __enter__(self) -> Self:
        """Establish trust in every pool, then begin.

        :raises Error: as :meth:`.trust.Trust.fleet`, for the first pool that cannot be trusted.
        :raises DeliveryError: ``BROKER_UNREACHABLE``.
        """
        for lane in self._lanes.values():
            lane.renew()
        make_reply_queue(self.client.broker, self._reply_to)
        for name, work in (("session-submit", self._submit_loop), ("session-receive", self._receive_loop)):
            thread = threading.Thread(target=self._guarded, args=(work,), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the session: who still waits gets ``SESSION_CLOSED``, keys are dropped (best effort)."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        closed = DeliveryError("SESSION_CLOSED", "the session was closed before the job was answered")
        _fail([waiting.future for waiting in self._waiting], closed)
        self._waiting.clear()
        for entry in list(self._pending.values()):
            self._end(entry, closed)
        for lane in self._lanes.values():
            lane.forget()

    # ------------------------------------------------------------- for users

    @property
    def pending(self) -> int:
        """How many jobs have no end yet."""
        with self._changed:
            return len(self._waiting) + len(self._pending)

    def fleet(self, pool: str) -> VerifiedFleet:
        """Return the pool's workers as trusted now; looks again where the last look is too old.

        :raises ConfigurationError: ``POOL_NOT_SERVED``. :raises Error: as :meth:`.trust.Trust.fleet`.
        """
        return self._lane(pool).renew()

    def known(self, pool: str) -> VerifiedFleet:
        """Return the pool's workers as they were last judged, without another look."""
        fleet = self._lane(pool).known
        return self.fleet(pool) if fleet is None else fleet

    def submit(
        self,
        item: InputItem,
        *,
        task: Task = "embed",
        pool: str | None = None,
        lifetime_s: int | None = None,
        listener: Listener = lambda _: None,
    ) -> Future[JobResult]:
        """Hand over one job; cancelling the future forgets it.

        The future raises what :meth:`ask` raises.

        :param pool: the session's first by default. :param lifetime_s: seconds until workers refuse it.
        :param listener: called with provisional texts, where the job asks for chunks, and before the end with
            the rest of them; in a thread of the session's, which it must not keep.
        :raises ConfigurationError: ``POOL_NOT_SERVED``.
        :raises DeliveryError: ``SESSION_BUSY`` or ``SESSION_CLOSED``.
        """
        name = self._lane(self.pools[0] if pool is None else pool).pool
        future: Future[JobResult] = Future()
        waiting = _Waiting(item, task, name, lifetime_s or self.lifetime_s, future, listener)
        with self._changed:
            if self._failed:
                raise _failed()
            if self._closed or not self._threads:
                raise DeliveryError("SESSION_CLOSED", "the session is not open", retriable=False)
            if len(self._waiting) + len(self._pending) >= self.max_pending:
                raise DeliveryError("SESSION_BUSY", f"{self.max_pending} jobs are waiting already")
            self._waiting.append(waiting)
            self._changed.notify_all()
        return future

    def ask(
        self, item: InputItem, *, task: Task = "embed", pool: str | None = None, lifetime_s: int | None = None
    ) -> JobResult:
        """Run one job and return its verified end, which may be a signed failure.

        :raises DeliveryError: ``JOB_UNANSWERED``: no verifiable answer came before the deadline;
            ``BROKER_UNREACHABLE``: it could not be submitted; ``SESSION_CLOSED``.
        :raises AppraisalError: the policy has ended, or wants none of the pool's workers.
        :raises Error: as :meth:`submit`, or the job cannot be sealed.
        """
        return self.submit(item, task=task, pool=pool, lifetime_s=lifetime_s).result()

    async def run(
        self, item: InputItem, *, task: Task = "embed", pool: str | None = None, lifetime_s: int | None = None
    ) -> JobResult:
        """Run one job without blocking the event loop; cancelling forgets the job. Raises as :meth:`ask`."""
        return await asyncio.wrap_future(self.submit(item, task=task, pool=pool, lifetime_s=lifetime_s))

    async def stream(
        self, item: InputItem, *, pool: str | None = None, lifetime_s: int | None = None
    ) -> AsyncGenerator[Delta | JobResult]:
        """Yield a generation's texts as they come, and its verified end last; leaving early forgets the job.

        Texts are provisional until the end has come (see :mod:`.stream`). Without ``stream`` in the
        parameters they come with it. Raises as :meth:`ask`.

        :raises VerificationError: ``STREAM_MISMATCH``: what was yielded is not the text of the result.
        """
        loop, events = asyncio.get_running_loop(), asyncio.Queue[Delta | None]()

        def listen(delta: Delta | None) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody listens any more
                loop.call_soon_threadsafe(events.put_nowait, delta)

        future = self.submit(item, task="generate", pool=pool, lifetime_s=lifetime_s, listener=listen)
        future.add_done_callback(lambda _: listen(None))
        try:
            while (delta := await events.get()) is not None:
                yield delta
            yield future.result()
        finally:
            future.cancel()

    def _lane(self, pool: str) -> Lane:
        try:
            return self._lanes[pool]
        except KeyError:
            raise ConfigurationError("POOL_NOT_SERVED", "the session does not serve this pool") from None

    def _guarded(self, work: Callable[[], None]) -> None:
        """Do a thread's work; an unexpected fault ends the session instead of leaving callers waiting."""
        try:
            work()
        except Exception as error:  # its text may hold anything
            LOG.error("an unexpected %s", type(error).__name__)
            with self._changed:
                self._failed = self._closed = True
                self._changed.notify_all()
                waiting = [*self._taken, *self._waiting]
                self._waiting.clear()
            failed = _failed()
            _fail([entry.future for entry in waiting if not entry.future.done()], failed)
            for entry in list(self._pending.values()):
                self._end(entry, failed)

    # ------------------------------------------------------------ submitting

    def _submit_loop(self) -> None:
        """Take whatever has gathered while the last pack was on its way: load makes packs, not waiting."""
        link = _Link(self.client)
        swept = time.monotonic()
        while (batch := self._take_waiting()) is not None:
            packs = [pack for kind, group in _by_kind(batch) for pack in self._sealed(*kind, group)]
            batch.clear()  # the inputs, in clear
            self._taken = []
            if time.monotonic() - swept >= SWEEP_SECONDS:
                packs += self._sweep()
                swept = time.monotonic()
            for pack in packs:
                self._submit(link, pack)
            self._mark_cancelled()
        self._mark_cancelled()
        link.drop()

    def _take_waiting(self) -> list[_Waiting] | None:
        """Return what waits, perhaps nothing after a while; None when the session is closed."""
        with self._changed:
            if not self._waiting and not self._cancelled and not self._closed:
                self._changed.wait(SWEEP_SECONDS)
            if self._closed:
                return None
            count = min(len(self._waiting), self.pack_jobs * len(self.pools))
            self._taken = [self._waiting.popleft() for _ in range(count)]
        return [waiting for waiting in self._taken if not waiting.future.cancelled()]

    def _sealed(self, pool: str, task: Task, group: Sequence[_Waiting]) -> list[Pack]:
        """Seal jobs into packs and note what their answers will be judged against."""
        lane, sealed = self._lanes[pool], []
        try:
            lane.renew()
        except Error as error:
            _fail([waiting.future for waiting in group], error)
            return []
        for waiting in group:
            try:
                given = waiting.item, task, waiting.lifetime_s, waiting.future, waiting.listener
                sealed.append(lane.seal(*given))
            except Error as error:
                _fail([waiting.future], error)
        packs = []
        # Replies leave when a whole pack is done, so a long text would hold back the others.
        for entries, pack in lane.packs(sealed, 1 if task == "generate" else self.pack_jobs):
            packs.append(pack)
            with self._changed:
                self._pending.update((entry.job_id, entry) for entry in entries)
            for entry in entries:
                entry.future.add_done_callback(partial(self._forget, entry))
        self.counts.submitted += len(sealed)
        return packs

    def _submit(self, link: _Link, pack: Pack) -> None:
        """Submit a pack; where the broker is away, its callers hear that now, they can ask again."""
        try:
            message = self._lanes[pack.head.pool].message(pack)
            link.submitter().submit(pack.head.pool, message)
        except Error as error:
            for entry in self._of(pack.jobs):
                self._end(entry, error)
            link.drop()
        else:
            pack.sent_at = self.client.now()
            self.counts.packs += 1

    def _sweep(self) -> list[Pack]:
        """End what is past its deadline, and return the packs that stayed unanswered too long."""
        now = self.client.now()
        with self._changed:
            pending = list(self._pending.values())
        for entry in pending:
            if now > entry.head.not_after + GRACE_SECONDS:
                self._end(entry, entry.refusal or _unanswered())
        patience = RESUBMIT_LEASES * self.client.broker.visibility_timeout_s
        packs = {id(entry.pack): entry.pack for entry in pending if now < entry.head.not_after}
        stale = [pack for pack in packs.values() if pack is not None and now - pack.sent_at > patience]
        self.counts.resubmitted += len(stale)
        return stale

    def _mark_cancelled(self) -> None:
        """Tell workers what need not run any more; they may miss it, nobody waits for the answers."""
        while self._cancelled:
            with suppress(Error):
                self.client.blobs.put(self._cancelled.popleft(), b"")

    def _of(self, job_ids: Iterable[bytes]) -> list[Pending]:
        with self._changed:
            return [self._pending[job_id] for job_id in job_ids if job_id in self._pending]

    def _end(self, entry: Pending, end: JobResult | Error) -> None:
        """Give a caller the end of its job; the first end counts."""
        with self._changed:
            if self._pending.pop(entry.job_id, None) is None:
                return
        if not entry.future.set_running_or_notify_cancel():
            return
        if isinstance(end, Error):
            entry.future.set_exception(end)
        else:
            self.counts.answered += 1
            entry.future.set_result(end)

    def _forget(self, entry: Pending, future: Future[JobResult]) -> None:
        """Drop a job that its caller has cancelled."""
        with self._changed:
            if self._pending.pop(entry.job_id, None) is not None and entry.cancel_key is not None:
                self._cancelled.append(entry.cancel_key)
                self._changed.notify_all()

    # ------------------------------------------------------------- receiving

    def _receive_loop(self) -> None:
        while not self._closed:
            try:
                with ReplyQueue(self.client.broker, self._reply_to) as queue:
                    self._receive(queue)
                    queue.done()
            except DeliveryError:
                with self._changed:  # the broker is away; callers wait until their deadlines
                    self._changed.wait_for(lambda: self._closed, RETRY_SECONDS)

    def _receive(self, queue: ReplyQueue) -> None:
        again = time.monotonic() + SWEEP_SECONDS
        while not self._closed:
            delivery = queue.receive(SWEEP_SECONDS)
            if delivery is not None:
                # Acknowledged even where it cannot be judged yet: it is kept here, and dies with the session.
                if not self._take(delivery.body):
                    self._unjudged.append(delivery.body)
                delivery.ack()
            if time.monotonic() >= again:
                self._take_unjudged()
                again = time.monotonic() + SWEEP_SECONDS

    def _take_unjudged(self) -> None:
        for _ in range(len(self._unjudged)):
            body = self._unjudged.popleft()
            if not self._take(body):
                self._unjudged.append(body)

    def _take(self, body: bytes) -> bool:
        """Judge a message's replies; False where one may be real and cannot be judged now."""
        chunk_of = job_of(body)
        if chunk_of is not None:
            self._take_chunk(chunk_of, body)
            return True
        try:
            message = decode_message(body)
            if isinstance(message, PackReference):
                message = get_content(self.client.blobs, message.digest.hex())
            _, replies = decode_replies(message)
        except (MalformedError, VerificationError):
            self.counts.discarded += 1
            return True
        except DeliveryError:
            return False
        judged = [self._judge(reply) for reply in replies]
        return all(judged)

    def _take_chunk(self, job_id: bytes, body: bytes) -> None:
        with self._changed:
            entry = self._pending.get(job_id)
        if entry is not None and entry.stream is not None:
            for delta in entry.stream.take(body):
                entry.listener(delta)

    def _judge(self, reply: SealedReply) -> bool:
        with self._changed:
            entry = self._pending.get(reply.job_id)
        if entry is None:
            return True
        try:
            result = entry.judge.judge(entry.record, reply, int(self.client.now()))
        except (FetchError, DeliveryError, EndorsementsError) as error:
            entry.refusal = error
            return False
        except AppraisalError as error:
            self._unwanted(entry, error)
        except Error as error:
            self.counts.discarded += 1
            entry.refusal = error
        else:
            self._end(entry, _streamed(entry, result))
        return True

    def _unwanted(self, entry: Pending, error: AppraisalError) -> None:
        """An answer of a worker that is not trusted counts nothing; without a policy no answer does."""
        self.counts.discarded += 1
        entry.refusal = error
        try:
            self.client.trust.current()
        except AppraisalError as ended:
            self._end(entry, ended)


class _Link:
    """The submitting thread's connection, made anew after a loss."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._open: Submitter | None = None

    def submitter(self) -> Submitter:
        """Return a submitter that is connected.

        :raises DeliveryError: ``BROKER_UNREACHABLE``.
        """
        if self._open is None:
            self._open = Submitter(self._client.broker).__enter__()
        return self._open

    def drop(self) -> None:
        """Close; harmless when it is closed."""
        if self._open is not None:
            self._open.__exit__(None, None, None)
            self._open = None


def _streamed(entry: Pending, result: JobResult) -> JobResult | Error:
    """Hand out the rest of a streamed text; an error where what was handed out was not the result's."""
    if entry.stream is not None:
        try:
            for delta in entry.stream.finish(result):
                entry.listener(delta)
        except Error as error:
            return error
    return result


def _by_kind(batch: Iterable[_Waiting]) -> list[tuple[tuple[str, Task], list[_Waiting]]]:
    groups: dict[tuple[str, Task], list[_Waiting]] = {}
    for waiting in batch:
        groups.setdefault((waiting.pool, waiting.task), []).append(waiting)
    return list(groups.items())


def _fail(futures: Iterable[Future[JobResult]], error: Error) -> None:
    """End jobs that are not sealed, which only their caller can have ended before."""
    for future in futures:
        if future.set_running_or_notify_cancel():
            future.set_exception(error)


def _failed() -> DeliveryError:
    message = "the session has met a fault of its own: make a new one"
    return DeliveryError("SESSION_FAILED", message, retriable=False)


def _unanswered() -> DeliveryError:
    return DeliveryError("JOB_UNANSWERED", "no worker answered before the job's deadline")
