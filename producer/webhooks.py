"""The receiver's side of webhooks: verify, open, judge. Trusted: it holds the ticket, and sees plaintext.

A webhook travels from an untrusted sender. Its signature says that the gateway sent it, nothing more; what a
job's event holds is then judged exactly as a result from the queue is: signed outcome, receipt, binding to
the job that was submitted, evidence under the trust policy::

    receiver = Receiver([read_verifying_key("whsec_…")], book_of([Path("my.ticket")]), client.trust)

    with receiver.open(body, headers) as event:
        if event.result is not None:
            print(event.result.custom_id, event.result.status)

A webhook may come again: after an answer that got lost, or because somebody recorded it. One that was dealt
with raises ``WEBHOOK_SEEN``: a receiver answers with 204 then, and with 400 to any other error that is not
``retriable``.
"""

from __future__ import annotations

import base64
import binascii
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from ..attestation.strict_json import read_json_object
from ..wire.errors import ConfigurationError, DeliveryError, Error, MalformedError, VerificationError
from ..wire.opening import Opener
from ..wire.pack import SealedReply, decode_replies
from ..wire.sealing import Sealed
from .gateway.webhooks.signing import (
    ID,
    SIGNATURE,
    TIMESTAMP,
    TOLERANCE_SECONDS,
    VerifyingKey,
    read_verifying_key,
    verify,
)
from .judge import JobResult, Judge
from .ticket import JobRecord, Ticket, TicketHead
from .trust import Trust

__all__ = [
    "BatchKeys",
    "Receiver",
    "Seen",
    "SeenIds",
    "WebhookEvent",
    "book_of",
    "open_event",
    "read_verifying_key",
]

MAX_BODY_BYTES: Final = 1 << 20
MAX_LINKED_BYTES: Final = 128 << 20
MAX_SEEN: Final = 100_000
#: Events about a job, which hold its sealed reply; all others are the gateway's word alone.
JOB_EVENTS: Final = ("job.completed", "job.failed")
EVENTS: Final = (
    *JOB_EVENTS,
    "batch.completed",
    "batch.expired",
    "batch.cancelled",
    "webhook.test",
    "webhook.disabled",
)
_BATCH: Final = re.compile(r"batch_[0-9a-f]{32}")
_LINK: Final = re.compile(r"/v1/batches/(batch_[0-9a-f]{32})/results\?after=[0-9]{1,9}")


@dataclass(frozen=True)
class BatchKeys:
    """What opens and judges the replies of one batch: its ticket's contents, without the file."""

    head: TicketHead
    jobs: Mapping[str, JobRecord] = field(repr=False)
    opener: Opener = field(repr=False)

    @classmethod
    def of(cls, ticket: Ticket) -> BatchKeys:
        """Return those of an open ticket."""
        return cls(ticket.head, dict(ticket.jobs), Opener([ticket.reply_key], "result"))

    @classmethod
    def load(cls, path: Path) -> BatchKeys:
        """Read a ticket file and leave it to others.

        :raises ConfigurationError: as :meth:`.ticket.Ticket.load`.
        """
        with Ticket.load(path) as ticket:
            return cls.of(ticket)


#: Finds what opens a batch, by its id (16 bytes); None: not one of ours.
Book = Callable[[bytes], BatchKeys | None]
#: Gets what a large event links to: the answer's body from ``/v1/batches/…``, at least its first line.
Fetch = Callable[[str], bytes]


def book_of(tickets: Iterable[Path | Ticket]) -> Book:
    """Return a book of tickets that are known beforehand.

    :raises ConfigurationError: ``NOT_A_BATCH``, or as :meth:`BatchKeys.load`.
    """
    found: dict[bytes, BatchKeys] = {}
    for each in tickets:
        keys = BatchKeys.load(each) if isinstance(each, Path) else BatchKeys.of(each)
        if keys.head.batch_id is None:
            raise ConfigurationError("NOT_A_BATCH", "the ticket was not planned as a batch")
        found[bytes.fromhex(keys.head.batch_id)] = keys
    return found.get


class Seen(Protocol):
    """Remembers webhooks by id. Share one among all processes that receive for an endpoint."""

    def begin(self, message_id: str) -> None:
        """Note that a webhook is being dealt with.

        :raises DeliveryError: ``WEBHOOK_SEEN``: it was dealt with; ``WEBHOOK_IN_WORK``, retriable: it is now.
        """

    def done(self, message_id: str) -> None:
        """Note that it was dealt with."""

    def forget(self, message_id: str) -> None:
        """Note that it was not: it may come again."""


class SeenIds:
    """Remembers the last 100,000 ids in this process; safe for threads."""

    def __init__(self, maximum: int = MAX_SEEN) -> None:
        self._maximum = maximum
        self._ids: OrderedDict[str, bool] = OrderedDict()
        self._lock = threading.Lock()

    def begin(self, message_id: str) -> None:
        """See :meth:`Seen.begin`."""
        with self._lock:
            if message_id in self._ids:
                raise _seen(dealt_with=self._ids[message_id])
            self._ids[message_id] = False
            while len(self._ids) > self._maximum:
                self._ids.popitem(last=False)

    def done(self, message_id: str) -> None:
        """See :meth:`Seen.done`."""
        with self._lock:
            self._ids[message_id] = True

    def forget(self, message_id: str) -> None:
        """See :meth:`Seen.forget`."""
        with self._lock:
            self._ids.pop(message_id, None)


def _seen(*, dealt_with: bool) -> DeliveryError:
    if dealt_with:
        return DeliveryError("WEBHOOK_SEEN", "this webhook was dealt with before", retriable=False)
    return DeliveryError("WEBHOOK_IN_WORK", "this webhook is being dealt with")


@dataclass(frozen=True)
class WebhookEvent:
    """A verified event.

    :param id: the same each time that it is sent. :param sent_at: of this attempt, Unix seconds.
    :param timestamp: when it happened, as the gateway says (RFC 3339). :param data: the gateway's word.
    :param result: the verified end of a job, for ``job.…`` events only.
    """

    id: str
    type: str
    sent_at: int
    timestamp: str
    data: Mapping[str, Any]
    result: JobResult | None = None


def open_event(
    body: bytes,
    headers: Mapping[str, str],
    keys: Sequence[VerifyingKey],
    book: Book,
    trust: Trust,
    *,
    now: float,
    seen: Seen,
    fetch: Fetch | None = None,
    tolerance_s: int = TOLERANCE_SECONDS,
) -> WebhookEvent:
    """Verify a webhook, open what it holds and judge that.

    1. the headers are whole, and one of the signatures is of one of the keys;
    2. it was sent within the tolerance, and not dealt with before;
    3. the body is of its form, and of a known type;
    4. a job's reply is of a batch and a job of ours; outcome, result and receipt are sound
       (:class:`.judge.Judge`);
    5. the event's type says what the signed outcome says.

    The caller tells ``seen`` what became of it; :class:`Receiver` does that by itself.

    :param body: exactly as it was received. :param headers: in any case. :param now: Unix seconds.
    :param fetch: gets linked replies. :param tolerance_s: seconds.
    :raises VerificationError: ``WEBHOOK_HEADERS``, ``WEBHOOK_SIGNATURE``, ``WEBHOOK_TIMESTAMP``,
        ``JOB_UNKNOWN``, ``EVENT_MISMATCH``, or what the judge says.
    :raises DeliveryError: as :meth:`Seen.begin`.
    :raises ConfigurationError: ``TICKET_MISSING`` or ``NO_FETCH``. :raises Error: as the judge.
    """
    lower = {name.lower(): value for name, value in headers.items()}
    stated = [lower.get(name, "") for name in (ID, TIMESTAMP, SIGNATURE)]
    if len(body) > MAX_BODY_BYTES:
        raise MalformedError("WEBHOOK_BODY", "the webhook's body is too large")
    signed = verify(keys, stated[0], stated[1], stated[2], body, now, tolerance_s)  # 1, 2
    seen.begin(signed.message_id)  # 2
    try:
        kind, timestamp, data = _parse(body)  # 3
        result = None
        if kind in JOB_EVENTS:
            result = _judged(data, book, trust, now, fetch)  # 4
            if (kind == "job.completed") != (result.status == "succeeded"):  # 5
                raise VerificationError("EVENT_MISMATCH", "the event's type is not what the outcome says")
        return WebhookEvent(signed.message_id, kind, signed.timestamp, timestamp, data, result)
    except BaseException:
        seen.forget(signed.message_id)
        raise


def _parse(body: bytes) -> tuple[str, str, dict[str, Any]]:
    value = read_json_object(body, max_bytes=MAX_BODY_BYTES, max_depth=4)
    kind, timestamp, data = value.get("type"), value.get("timestamp"), value.get("data")
    if kind not in EVENTS or not isinstance(timestamp, str) or not isinstance(data, dict):
        raise MalformedError("WEBHOOK_BODY", "the webhook's body is not of its form, or of an unknown type")
    return str(kind), timestamp, data


def _judged(data: Mapping[str, Any], book: Book, trust: Trust, now: float, fetch: Fetch | None) -> JobResult:
    name, job_id = data.get("batch_id"), data.get("job_id")
    if not isinstance(name, str) or _BATCH.fullmatch(name) is None or not isinstance(job_id, str):
        raise MalformedError("WEBHOOK_BODY", "the webhook names no job of a batch")
    keys = book(bytes.fromhex(name.removeprefix("batch_")))
    if keys is None:
        raise ConfigurationError("TICKET_MISSING", "there is no ticket of this webhook's batch")
    record = keys.jobs.get(job_id)
    if record is None:
        raise VerificationError("JOB_UNKNOWN", "the webhook is of a job that is not in the ticket")
    reply = _reply(data, name, keys, fetch)
    if reply.job_id.hex() != job_id:
        raise VerificationError("EVENT_MISMATCH", "the webhook holds the reply to another job")
    return Judge(keys.head, trust, keys.opener).judge(record, reply, int(now))


def _reply(data: Mapping[str, Any], batch: str, keys: BatchKeys, fetch: Fetch | None) -> SealedReply:
    inline, link = data.get("reply"), data.get("link")
    if isinstance(inline, str):
        pool, replies = decode_replies(_octets(inline))
        if pool != keys.head.pool or len(replies) != 1:
            raise VerificationError("EVENT_MISMATCH", "the webhook holds no reply of one job of this pool")
        return replies[0]
    found = _LINK.fullmatch(link) if isinstance(link, str) else None
    if found is None or found[1] != batch:
        raise MalformedError("WEBHOOK_BODY", "the webhook holds neither a reply nor a link to one")
    if fetch is None:
        raise ConfigurationError("NO_FETCH", "the webhook links a large reply: give fetch=")
    return _line(fetch(found[0]).partition(b"\n")[0])


def _line(line: bytes) -> SealedReply:
    """Read the first line of a batch's results as the gateway streams them."""
    value = read_json_object(line, max_bytes=MAX_LINKED_BYTES, max_depth=1)
    names = ("outcome", "header", "recipient", "iv", "ciphertext")
    texts = [value.get(name) for name in names]
    job_id = value.get("job_id")
    if not isinstance(job_id, str) or re.fullmatch("[0-9a-f]{32}", job_id) is None:
        raise MalformedError("WEBHOOK_BODY", "a linked reply names no job")
    if not isinstance(texts[0], str) or len({text is None for text in texts[1:]}) != 1:
        raise MalformedError("WEBHOOK_BODY", "a linked reply is not of its form")
    parts = [_octets(str(text)) for text in texts if text is not None]
    if len(parts) == 1:
        return SealedReply(bytes.fromhex(job_id), parts[0])
    return SealedReply(bytes.fromhex(job_id), parts[0], parts[1], Sealed(parts[2], parts[3], parts[4]))


def _octets(text: str) -> bytes:
    """Return the bytes of base64url without padding (RFC 4648, section 5)."""
    try:
        return base64.b64decode(text.encode() + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise MalformedError("WEBHOOK_BODY", "a reply is not in base64url") from None


@dataclass
class Receiver:
    """Opens webhooks of one endpoint; safe for threads.

    :param keys: those in force: two while a key is rotated. :param book: finds tickets by batch.
    :param fetch: gets linked replies. :param seen: shared among processes, if there are several.
    """

    keys: Sequence[VerifyingKey]
    book: Book
    trust: Trust
    fetch: Fetch | None = None
    seen: Seen = field(default_factory=SeenIds)
    now: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        if not self.keys:
            raise ConfigurationError(
                "BAD_WEBHOOK_KEY", "a receiver needs the key that its endpoint was shown"
            )

    @contextmanager
    def open(self, body: bytes, headers: Mapping[str, str]) -> Iterator[WebhookEvent]:
        """Yield a verified event; it counts as dealt with when the block ends without an error.

        :raises Error: as :func:`open_event`.
        """
        event = open_event(
            body, headers, self.keys, self.book, self.trust, now=self.now(), seen=self.seen, fetch=self.fetch
        )
        try:
            yield event
        except BaseException:
            self.seen.forget(event.id)
            raise
        self.seen.done(event.id)

    @staticmethod
    def status(error: Error) -> int:
        """Return the HTTP status to answer with: 204: was seen; 503: may come again; 400."""
        if error.code == "WEBHOOK_SEEN":
            return 204
        return 503 if error.retriable or isinstance(error, ConfigurationError) else 400
