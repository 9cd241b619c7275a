"""The one Celery task: resolve the pack, answer it, publish the replies; returning acknowledges.

Nothing of a job may reach Celery's log or result backend: results are ignored, and
nothing but a code ever leaves this module.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from ..broker_config.blobs import BlobStore, get_content, put_content
from ..wire.encoding import sha256
from ..wire.errors import DeliveryError, Error, MalformedError
from ..wire.pack import PackReference, SealedReply, decode_message, encode_message, encode_replies
from .pipeline import Pipeline

LOG: Final = logging.getLogger("ephemeralml.worker")
RETRY_SECONDS: Final = (0.2, 0.5, 1.0, 2.0, 5.0)


@dataclass
class JobTask:
    """What the Celery task calls with each message.

    :param publish: sends a message's body to a reply queue.
    :param inline_limit: bytes; a larger pack of replies travels through the blob store.
    :param stopping: set when the worker must give up retries (the message then stays unacknowledged).
    :param seal: answers a message that asks to seal a batch, and says whether it was one.
    :param admit: raises when the worker may answer no more; the message then stays unacknowledged.
    """

    pipeline: Pipeline
    blobs: BlobStore
    publish: Callable[[str, bytes], None]
    inline_limit: int
    stopping: threading.Event = field(default_factory=threading.Event)
    seal: Callable[[bytes], bool] = lambda _: False
    admit: Callable[[], None] = lambda: None
    _in_work: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def in_work(self) -> int:
        """How many messages are in work right now."""
        return self._in_work

    def __call__(self, message: bytes) -> None:
        """Answer one message.

        :raises DeliveryError: replies could not be published before the worker was stopped, or the policy
            lets it answer no more.
        """
        self.admit()
        with self._lock:
            self._in_work += 1
        try:
            self._answer(message)
        finally:
            with self._lock:
                self._in_work -= 1

    def _answer(self, message: bytes) -> None:
        try:
            if self.seal(message):
                return
            replies = self.pipeline.answer(self._resolve(message))
        except MalformedError as error:
            LOG.error("a message was dropped: %s", error.code)
            return
        grouped: dict[str, list[SealedReply]] = defaultdict(list)
        for reply in replies:
            grouped[reply.reply_to].append(reply.sealed)
        for reply_to, sealed in grouped.items():
            pack = encode_replies(self.pipeline.identity.pool, sealed)
            self._retrying(lambda to=reply_to, body=pack: self.publish(to, self._body(body)))  # type: ignore[misc]
        LOG.info("answered %d job(s)", len(replies))

    def _resolve(self, message: bytes) -> bytes:
        body = decode_message(message)
        if isinstance(body, bytes):
            return body
        pack = get_content(self.blobs, body.digest.hex())
        if len(pack) != body.size:
            raise MalformedError("PACK_SIZE", "the blob is not of the stated size")
        return pack

    def _body(self, pack: bytes) -> bytes:
        if len(pack) <= self.inline_limit:
            return encode_message(pack)
        put_content(self.blobs, pack)
        return encode_message(PackReference(sha256(pack), len(pack)))

    def _retrying(self, act: Callable[[], None]) -> None:
        """Try until it works: an answered job is never thrown away, and never run again for this."""
        for attempt in range(1 << 30):
            try:
                return act()
            except Error as error:
                delay = RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)]
                LOG.warning("replies not published yet: %s", error.code)
                if self.stopping.wait(delay):
                    raise DeliveryError(
                        "REPLY_NOT_PUBLISHED", "stopped before replies were published"
                    ) from None
        raise AssertionError("unreachable")
