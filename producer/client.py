"""The SDK: trust, seal, submit, wait, open, verify.

One synchronous core; :class:`AsyncClient` runs the same calls in threads.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ..attestation.policy import TrustPolicy
from ..attestation.policy_source import PolicySource, StaticPolicy
from ..attestation.verify import Endorsements
from ..broker_config.blobs import BlobStore, get_content, put_content
from ..broker_config.replies import ReplyQueue, make_reply_queue
from ..broker_config.settings import BrokerSettings
from ..broker_config.submit import Submitter
from ..wire.chunk import is_chunk
from ..wire.encoding import sha256
from ..wire.errors import (
    ConfigurationError,
    MalformedError,
    VerificationError,
)
from ..wire.job import Task
from ..wire.keys import SuiteName
from ..wire.pack import (
    DEFAULT_PACK_JOBS,
    PackReference,
    decode_message,
    decode_replies,
    encode_message,
)
from .collecting import Collector, Taken
from .inputs import InputItem
from .judge import JobResult
from .planning import Plan, check_wanted, check_whole, seal_ticket
from .stream import Delta, TicketStreams
from .ticket import Ticket
from .trust import Trust, VerifiedFleet

POLL_SECONDS: Final = 0.5
#: Silence after which unanswered packs are submitted again, in visibility timeouts.
RESUBMIT_LEASES: Final = 1.5


@dataclass
class Client:
    """Submits jobs to attested workers and hands out verified results only.

    ::

        client = Client(broker, blobs, policy, endorsements)
        with client.plan(client.trust_pool("minilm"), items, Path("my.ticket")) as ticket:
            client.push(ticket)
            for result in client.results(ticket, timeout_s=60):
                print(result.custom_id, result.status)

    :param policy: which workers and models are wanted; a source is asked again for every judgement.
    :param endorsements: roots to verify under.
    """

    broker: BrokerSettings
    blobs: BlobStore
    policy: TrustPolicy | PolicySource
    endorsements: Endorsements
    now: Callable[[], float] = time.time
    trust: Trust = field(init=False)
    discarded: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        source = StaticPolicy(self.policy) if isinstance(self.policy, TrustPolicy) else self.policy
        self.trust = Trust(self.blobs, source, self.endorsements, self.now)

    def trust_pool(self, pool: str) -> VerifiedFleet:
        """Verify and appraise a pool's workers; see :meth:`.trust.Trust.fleet`."""
        return self.trust.fleet(pool)

    def plan(
        self,
        fleet: VerifiedFleet,
        items: Sequence[InputItem],
        ticket_path: Path,
        *,
        task: Task = "embed",
        suite: SuiteName = "xwing",
        lifetime_s: int = 3600,
        pack_jobs: int = DEFAULT_PACK_JOBS,
        batch: bool = False,
    ) -> Ticket:
        """Seal all items into packs and write the ticket; nothing is submitted yet.

        A fleet that was judged under another policy than the one in force is judged again first.

        :param lifetime_s: seconds after which workers refuse the jobs. :param pack_jobs: 1 to 1024.
        :param batch: commit to all items, so that :func:`.batch.seal_batch` can prove the batch whole.
        :raises ConfigurationError: the ticket cannot be written.
        :raises AppraisalError: the policy in force has ended or wants none of the workers.
        """
        reply_to = "reply." + secrets.token_hex(16)
        plan = Plan(reply_to, task, suite, lifetime_s, pack_jobs, batch)
        return seal_ticket(self.trust, fleet, items, ticket_path, plan, self.now)

    def push(self, ticket: Ticket, progress: Callable[[int], None] = lambda _: None) -> None:
        """Submit every pack of the ticket that the broker has not confirmed yet.

        :param progress: called with the number of packs still to go.
        :raises ConfigurationError: ``TICKET_INCOMPLETE``: the client was ended before all was sealed.
            ``WRONG_GATEWAY``: the ticket is for a gateway.
        :raises DeliveryError: the broker cannot be reached; call again, nothing is lost.
        :raises AppraisalError: the policy in force has ended, wants none of the workers, or
            ``FLEET_KEY_NOT_WANTED``: none of those that it wants holds the key that was sealed to.
        """
        check_whole(ticket)
        if ticket.head.gateway is not None:
            raise ConfigurationError("WRONG_GATEWAY", "the ticket is for a gateway, not for this queue")
        self._submit(ticket, dict(ticket.pending_packs), progress)

    def _submit(self, ticket: Ticket, packs: dict[str, bytes], progress: Callable[[int], None]) -> None:
        judged: TrustPolicy | None = None
        make_reply_queue(self.broker, ticket.head.reply_to)
        with Submitter(self.broker) as submitter:
            for left, (name, pack) in zip(range(len(packs) - 1, -1, -1), packs.items(), strict=True):
                policy = self.trust.current()
                if policy is not judged:
                    check_wanted(self.trust, ticket.head, packs.values())
                    judged = policy
                submitter.submit(ticket.head.pool, self.message(pack, ticket.head.not_after))
                ticket.submitted(name, self.now())
                progress(left)

    def _submit_again(self, ticket: Ticket, last_news: float) -> None:
        """Submit what stayed unanswered for longer than a dead worker's lease.

        A host may drop a message, and a worker that is killed between taking a message and leasing it
        takes it along. A second answer to a job counts nothing, so asking again is safe.
        """
        now, patience = self.now(), RESUBMIT_LEASES * self.broker.visibility_timeout_s
        if now - max(last_news, ticket.last_submitted) > patience and now < ticket.head.not_after:
            self._submit(ticket, ticket.unanswered_packs(), lambda _: None)

    def results(
        self, ticket: Ticket, timeout_s: float, progress: Callable[[int], None] = lambda _: None
    ) -> Iterator[JobResult]:
        """Yield each job's verified end once, in order of arrival, those of earlier runs first.

        Stops after the last one, or when ``timeout_s`` seconds bring nothing new (see ``ticket.missing``).
        Replies that do not verify are discarded and counted in :attr:`discarded`. Packs that stay
        unanswered for longer than a dead worker's lease are submitted again.

        :raises DeliveryError: the broker cannot be reached; call again, nothing is lost.
        :raises AppraisalError: the policy in force has ended; nothing is judged, nothing is lost.
        """
        for event in self._events(ticket, timeout_s, progress, None):
            if isinstance(event, JobResult):
                yield event

    def stream(self, ticket: Ticket, timeout_s: float) -> Iterator[Delta | JobResult]:
        """Yield texts while they are generated, and each job's verified end after the last of its text.

        Text is provisional until its job's result has come (see :mod:`.stream`); jobs that send no chunks
        yield their text with the result. Otherwise as :meth:`results`, which may be called afterwards.

        :raises VerificationError: ``STREAM_MISMATCH``: what was yielded is not the result's text. The result
            is kept in the ticket: :meth:`results` hands it out.
        """
        streams = TicketStreams(ticket)
        for event in self._events(ticket, timeout_s, lambda _: None, streams):
            if isinstance(event, JobResult):
                yield from streams.finish(event)
            yield event

    def _events(
        self, ticket: Ticket, timeout_s: float, progress: Callable[[int], None], streams: TicketStreams | None
    ) -> Iterator[Delta | JobResult]:
        collector = Collector(ticket, self.trust, self.now, self._discard)
        yield from collector.stored()
        if not ticket.missing:
            return
        with ReplyQueue(self.broker, ticket.head.reply_to) as queue:
            deadline = time.monotonic() + timeout_s
            last_news = 0.0
            while ticket.missing and time.monotonic() < deadline:
                self.trust.current()
                delivery = queue.receive(min(POLL_SECONDS, timeout_s))
                if delivery is None:
                    self._submit_again(ticket, last_news)
                    continue
                if is_chunk(delivery.body):
                    delivery.ack()
                    deltas = [] if streams is None else streams.take(delivery.body)
                    if deltas:
                        deadline, last_news = time.monotonic() + timeout_s, self.now()
                    yield from deltas
                    continue
                taken = self._take(collector, delivery.body)
                if taken.judged:
                    delivery.ack()
                if taken.results:
                    deadline, last_news = time.monotonic() + timeout_s, self.now()
                    progress(len(ticket.missing))
                yield from taken.results
            if not ticket.missing:
                queue.done()

    def _take(self, collector: Collector, body: bytes) -> Taken:
        """Judge a message's replies and store the sound ones, before it is acknowledged."""
        try:
            message = decode_message(body)
            if isinstance(message, PackReference):
                message = get_content(self.blobs, message.digest.hex(), message.size)
            _, replies = decode_replies(message)
        except (MalformedError, VerificationError):
            self._discard()
            return Taken([], judged=True)
        return collector.take(replies)

    def _discard(self) -> None:
        self.discarded += 1

    def message(self, pack: bytes, keep_until: int) -> bytes:
        """Return the message that carries a pack, which goes to the blob store where it is large.

        :param keep_until: Unix seconds until which a worker may want it.
        :raises DeliveryError: the blob store cannot be used; try again.
        """
        if len(pack) <= self.broker.inline_limit_bytes:
            return encode_message(pack)
        put_content(self.blobs, pack, keep_until)
        return encode_message(PackReference(sha256(pack), len(pack)))
