"""The one Celery task: resolve the pack, answer it, publish the replies; returning acknowledges.

Nothing of a job may reach Celery's log or result backend: results are ignored, and
nothing but a code ever leaves this module.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from ..broker_config.blobs import MAX_BLOB_BYTES, BlobStore, get_content, put_content
from ..broker_config.dead_letters import DeadLetters
from ..broker_config.ledger import Ledger, message_id
from ..wire.encoding import sha256
from ..wire.errors import DeliveryError, Error, MalformedError
from ..wire.pack import PackReference, SealedReply, decode_message, encode_message, encode_replies
from .logs import event
from .meter import End, Stage
from .pipeline import Pipeline
from .redelivery import Redelivery

LOG: Final = logging.getLogger("ephemeralml.worker")
RETRY_SECONDS: Final = (0.2, 0.5, 1.0, 2.0, 5.0)
UNEXPECTED: Final = "UNEXPECTED"
_RETURNED: Final[End] = "returned"


@dataclass
class JobTask:
    """What the Celery task calls with each message.

    :param publish: sends a message's body to a reply queue.
    :param inline_limit: bytes; a larger pack of replies travels through the blob store.
    :param stopping: set when the worker must give up retries (the message then stays unacknowledged).
    :param seal: answers a message that asks to seal a batch, and says whether it was one.
    :param max_attempts: how often a job may run before it ends as failed.
    :param largest: bytes; a larger pack of replies fits nowhere, and is halved.
    :param reply_ttl: seconds that replies in the blob store are kept.
    :param max_payload: bytes; a larger pack of jobs is not fetched, and its message is buried.
    :param admit: raises when the worker may answer no more; the message then stays unacknowledged.
    """

    pipeline: Pipeline
    blobs: BlobStore
    publish: Callable[[str, bytes], None]
    inline_limit: int
    stopping: threading.Event = field(default_factory=threading.Event)
    seal: Callable[[bytes], bool] = lambda _: False
    admit: Callable[[], None] = lambda: None
    max_attempts: int = 3
    largest: int = MAX_BLOB_BYTES
    reply_ttl: int = 86_400
    max_payload: int = MAX_BLOB_BYTES
    _in_work: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def in_work(self) -> int:
        """How many messages are in work right now."""
        return self._in_work

    def __call__(self, message: bytes, deliveries: int = 1) -> None:
        """Answer one message.

        :param deliveries: for the how manieth time it was delivered.
        :raises DeliveryError: replies could not be published before the worker was stopped, the policy
            lets it answer no more, or something unexpected happened: the message must come again.
        """
        self.admit()
        meter, end = self.pipeline.meter, _RETURNED
        meter.message(deliveries)
        with self._lock:
            self._in_work += 1
        try:
            end = self._answer(message, deliveries)
        finally:
            meter.message_ended(end)
            with self._lock:
                self._in_work -= 1

    def _answer(self, message: bytes, deliveries: int) -> End:
        redelivery = self.redelivery()
        try:
            if self.seal(message):
                return "answered"
            with self._timed("resolve"):
                pack = self._resolve(message)
            again = deliveries > 1
            answered = redelivery.answer(message, pack, deliveries) if again else self._first(pack)
        except Error as error:
            if error.retriable:
                raise
            redelivery.bury(message, error.code, deliveries)
            return "dead"
        except Exception as error:  # a fault of ours ends no job silently; its text may hold anything
            event(LOG, logging.ERROR, "an unexpected fault", error=type(error).__name__)
            if not redelivery.hopeless(deliveries):
                raise DeliveryError(UNEXPECTED, "an unexpected fault; the message comes again") from None
            redelivery.bury(message, UNEXPECTED, deliveries)
            return "dead"
        ident = message_id(message)
        event(LOG, logging.INFO, "answered", jobs=answered, message=ident, deliveries=deliveries)
        return "answered"

    def _first(self, pack: bytes) -> int:
        replies = self.pipeline.answer(pack)
        grouped: dict[str, list[SealedReply]] = defaultdict(list)
        for reply in replies:
            grouped[reply.reply_to].append(reply.sealed)
        refused: Error | None = None
        for reply_to, sealed in grouped.items():
            try:
                self.send(reply_to, sealed)
            except Error as error:  # a client that has gone must not keep its neighbours' replies back
                if error.retriable:
                    raise
                refused = error
        if refused is not None:
            raise refused
        return len(replies)

    def send(self, reply_to: str, sealed: Sequence[SealedReply]) -> None:
        """Publish replies; try until it works or the worker is stopped.

        :raises DeliveryError: ``REPLY_NOT_PUBLISHED``. :raises Error: what no further try would mend.
        """
        pack = encode_replies(self.pipeline.identity.pool, sealed)
        if len(pack) > self.largest and len(sealed) > 1:
            half = len(sealed) // 2
            self.send(reply_to, sealed[:half])
            self.send(reply_to, sealed[half:])
            return
        with self._timed("publish"):
            self._retrying(lambda: self.publish(reply_to, self._body(pack)))

    @contextmanager
    def _timed(self, stage: Stage) -> Iterator[None]:
        pipeline = self.pipeline
        started = pipeline.monotonic()
        yield
        pipeline.meter.took(stage, pipeline.monotonic() - started)

    def redelivery(self) -> Redelivery:
        """Return what answers messages that come again."""
        pool = self.pipeline.identity.pool
        ledger, letters = Ledger(self.blobs, pool), DeadLetters(self.blobs, pool)
        return Redelivery(self.pipeline, ledger, letters, self.send, self.max_attempts, self.pipeline.unix)

    def _resolve(self, message: bytes) -> bytes:
        body = decode_message(message)
        if isinstance(body, bytes):
            return body
        if body.size > self.max_payload:
            raise MalformedError("PAYLOAD_TOO_LARGE", "a pack is larger than this worker takes")
        pack = get_content(self.blobs, body.digest.hex(), body.size)
        if len(pack) != body.size:
            raise MalformedError("PACK_SIZE", "the blob is not of the stated size")
        return pack

    def _body(self, pack: bytes) -> bytes:
        if len(pack) <= self.inline_limit:
            return encode_message(pack)
        put_content(self.blobs, pack, int(self.pipeline.unix()) + self.reply_ttl)
        return encode_message(PackReference(sha256(pack), len(pack)))

    def _retrying(self, act: Callable[[], None]) -> None:
        """Try until it works: an answered job is never thrown away, and never run again for this."""
        for attempt in range(1 << 30):
            try:
                return act()
            except Error as error:
                if not error.retriable:
                    raise
                delay = RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)]
                self.pipeline.meter.publish_failed()
                LOG.warning("replies not published yet: %s", error.code)
                if self.stopping.wait(delay):
                    raise DeliveryError(
                        "REPLY_NOT_PUBLISHED", "stopped before replies were published"
                    ) from None
        raise AssertionError("unreachable")
