"""The SDK through a gateway: trust, seal, upload, follow, open, verify."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ...attestation.policy import TrustPolicy
from ...attestation.policy_source import PolicySource, StaticPolicy
from ...attestation.verify import Endorsements
from ...receipts.batch_statement import peek_batch_statement
from ...receipts.batch_verify import verify_batch
from ...wire.encoding import decode, encode
from ...wire.errors import ConfigurationError, DeliveryError, MalformedError
from ...wire.job import Task
from ...wire.keys import SuiteName
from ...wire.pack import DEFAULT_PACK_JOBS, SealedReply, decode_replies
from ...wire.sequence import SequenceSplitter
from ..batch import SealedBatch, batch_file
from ..collecting import Collector
from ..inputs import InputItem
from ..judge import JobResult
from ..planning import Plan, check_wanted, check_whole, seal_ticket
from ..ticket import Ticket
from ..trust import Trust, VerifiedFleet
from .api import BatchStatus, GatewayApi
from .blobs import GatewayBlobs

#: A pack of replies of the largest results, in bytes (workers answer up to 100 MiB).
MAX_ITEM_BYTES: Final = 128 << 20
#: Pause after a failed or empty read, seconds.
PAUSE_S: Final = 1.0
#: Pauses between tries to upload, seconds: a gateway takes few uploads at once.
PUSH_PAUSES_S: Final = (1.0, 2.0, 5.0, 10.0)
#: Bytes that are sent at once.
PIECE_BYTES: Final = 1 << 20
Progress = Callable[[int], None]


@dataclass
class GatewayClient:
    """Submits batches through a gateway and hands out verified results only; see :mod:`.` for its use.

    :param policy: which workers and models are wanted; a source is asked again for every judgement.
    :param endorsements: roots to verify under.
    """

    api: GatewayApi
    policy: TrustPolicy | PolicySource
    endorsements: Endorsements
    now: Callable[[], float] = time.time
    trust: Trust = field(init=False)
    discarded: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        source = StaticPolicy(self.policy) if isinstance(self.policy, TrustPolicy) else self.policy
        self.trust = Trust(GatewayBlobs(self.api), source, self.endorsements, self.now)

    def trust_pool(self, pool: str) -> VerifiedFleet:
        """Verify and appraise a pool's workers; see :meth:`..trust.Trust.fleet`."""
        return self.trust.fleet(pool)

    def plan(
        self,
        fleet: VerifiedFleet,
        items: Sequence[InputItem],
        ticket_path: Path,
        *,
        task: Task = "embed",
        suite: SuiteName = "xwing",
        lifetime_s: int = 86_400,
        pack_jobs: int = DEFAULT_PACK_JOBS,
    ) -> Ticket:
        """Seal all items as one batch and write the ticket; nothing is sent yet.

        :param lifetime_s: seconds that the batch may take; workers refuse its jobs afterwards.
        :raises ConfigurationError: ``EMPTY_BATCH``, or the ticket cannot be written.
        :raises AppraisalError: the policy in force has ended or wants none of the workers.
        :raises DeliveryError: the gateway does not answer.
        """
        if not items:
            raise ConfigurationError("EMPTY_BATCH", "a batch has at least one job")
        plan = Plan(self.api.reply_to(), task, suite, lifetime_s, pack_jobs, batch=True, gateway=self.api.url)
        return seal_ticket(self.trust, fleet, items, ticket_path, plan, self.now)

    def push(self, ticket: Ticket, progress: Progress = lambda _: None) -> None:
        """Upload the batch, unless the gateway has it: it takes a batch whole and once, or not at all.

        :param progress: called with the number of packs still to go.
        :raises DeliveryError: the gateway does not answer, or its reason; call again, nothing is lost.
        :raises ConfigurationError: ``WRONG_GATEWAY``, ``TICKET_INCOMPLETE``.
        """
        name = self.name_of(ticket)
        if not ticket.pending_packs:
            return
        for pause in (*PUSH_PAUSES_S, None):
            check_wanted(self.trust, ticket.head, ticket.packs.values())
            try:
                self.api.upload(name, _body(ticket, progress))
                break
            except DeliveryError as error:
                # The answer to an upload may have been lost: the batch's id was chosen here, so ask for it.
                if error.code in ("GATEWAY_UNREACHABLE", "BATCH_EXISTS") and self._has(name):
                    break
                if pause is None or not error.retriable:
                    raise
            time.sleep(pause)
        ticket.accepted(self.now())
        progress(0)

    def status(self, ticket: Ticket) -> BatchStatus:
        """Return what the gateway says of the batch."""
        return self.api.batch(self.name_of(ticket))

    def cancel(self, ticket: Ticket) -> BatchStatus:
        """Ask for the batch's cancellation; every job still has its signed end."""
        return self.api.cancel(self.name_of(ticket))

    def results(
        self, ticket: Ticket, timeout_s: float, progress: Progress = lambda _: None
    ) -> Iterator[JobResult]:
        """Yield each job's verified end once, in order of arrival, those of earlier runs first.

        Stops after the last one, when the batch has ended without it, or when ``timeout_s`` seconds bring
        nothing new (see ``ticket.missing``). Replies that do not verify are discarded and counted in
        :attr:`discarded`.

        :raises DeliveryError: the gateway refuses; call again, nothing is lost.
        :raises AppraisalError: the policy in force has ended; nothing is judged, nothing is lost.
        """
        name = self.name_of(ticket)
        collector = Collector(ticket, self.trust, self.now, self._discard)
        yield from collector.stored()
        deadline, again = time.monotonic() + timeout_s, True
        while ticket.missing and time.monotonic() < deadline:
            self.trust.current()
            news, seen = False, ticket.seen
            try:
                for found in self._read(name, ticket, collector):
                    if found:
                        news, deadline = True, time.monotonic() + timeout_s
                        progress(len(ticket.missing))
                        yield from found
                over = not news and ticket.seen == seen and self.api.batch(name).ended
            except DeliveryError as error:
                if not error.retriable:
                    raise
                over = False
            if over and again and seen:
                # A gateway may have counted wrongly, or evidence was missing: once from the start.
                again = False
                ticket.received(ticket.head.pool, (), 0)
            elif over:
                return
            elif not news:
                time.sleep(min(PAUSE_S, max(0.0, deadline - time.monotonic())))

    def seal_batch(self, ticket: Ticket) -> SealedBatch:
        """Return the batch statement, verified against this ticket's own commitment and outcomes.

        :raises ConfigurationError: ``BATCH_UNFINISHED``. :raises DeliveryError: ``NO_STATEMENT``: not yet.
        :raises VerificationError: it is not sound. :raises EndorsementsError: its signer is unknown.
        """
        file = batch_file(ticket)
        statement = self.api.statement(self.name_of(ticket))
        signer = peek_batch_statement(statement).attestation_doc_hash
        key = self.trust.worker(ticket.head.pool, signer).body.receipt_key
        root = bytes.fromhex(ticket.head.input_root or "")
        return SealedBatch(
            statement, key, file, verify_batch(statement, key, io.BytesIO(file), input_root=root)
        )

    def name_of(self, ticket: Ticket) -> str:
        """Return the batch's name at the gateway.

        :raises ConfigurationError: ``WRONG_GATEWAY``: the ticket is for another one, or for a queue.
            ``TICKET_INCOMPLETE``: the client was ended before all was sealed.
        """
        if ticket.head.gateway != self.api.url or ticket.head.batch_id is None:
            raise ConfigurationError("WRONG_GATEWAY", "the ticket is not for this gateway")
        check_whole(ticket)
        return "batch_" + ticket.head.batch_id

    def _read(self, name: str, ticket: Ticket, collector: Collector) -> Iterator[list[JobResult]]:
        """Read the results stream once, and yield what was judged and stored."""
        splitter = SequenceSplitter(MAX_ITEM_BYTES)
        for piece in self.api.results(name, ticket.seen):
            for item in splitter.feed(piece):
                first, replies = _item(item)
                if first > ticket.seen:
                    raise MalformedError("BAD_ANSWER", "the gateway left results out")
                taken = collector.take(replies, max(ticket.seen, first + len(replies)))
                yield taken.results
                if not taken.judged:
                    return

    def _has(self, name: str) -> bool:
        try:
            self.api.batch(name)
        except DeliveryError as error:
            if error.code == "BATCH_NOT_FOUND":
                return False
            raise
        return True

    def _discard(self) -> None:
        self.discarded += 1


def _body(ticket: Ticket, progress: Progress) -> Iterator[bytes]:
    """Yield the upload in pieces: the same bytes each time, so that it can be sent again."""
    head = ticket.head
    yield encode(
        {
            1: 1,
            2: head.pool,
            3: bytes.fromhex(head.batch_id or ""),
            4: len(ticket.jobs),
            5: head.window_s,
            6: bytes.fromhex(head.input_root or ""),
        }
    )
    held: list[bytes] = []
    for left, pack in zip(range(len(ticket.packs) - 1, -1, -1), ticket.packs.values(), strict=True):
        held.append(encode([pack, None]))  # custom ids stay here: the gateway would see them
        if sum(map(len, held)) >= PIECE_BYTES or not left:
            yield b"".join(held)
            held.clear()
            progress(left)


def _item(data: bytes) -> tuple[int, Sequence[SealedReply]]:
    match decode(data, max_bytes=MAX_ITEM_BYTES):
        case [int() as first, bytes() as pack] if first >= 0:
            return first, decode_replies(pack)[1]
    raise MalformedError("BAD_ANSWER", "the gateway's results are not of their form")
