"""A message that comes again: run its jobs one by one, and give up what keeps killing workers.

The first delivery of a message runs its whole pack at once and writes nothing down.
Whatever comes a second time was in the hands of a worker that died or lost its lease,
perhaps because of one of its jobs. That job is found by the starts that the ledger
counts; its neighbours get their answers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from ..broker_config.dead_letters import DeadLetter, DeadLetters
from ..broker_config.ledger import Ledger, message_id
from ..wire.errors import DeliveryError, Error
from ..wire.header import JobHeader
from ..wire.pack import SealedJob, SealedReply, decode_jobs, decode_replies, encode_jobs, encode_replies
from .pipeline import Pipeline, Reply

LOG: Final = logging.getLogger("ephemeralml.worker")
EXHAUSTED: Final = "ATTEMPTS_EXHAUSTED"
#: A message may be given back unharmed too (drain, reconnect): only so many deliveries per attempt are one.
DELIVERIES_PER_ATTEMPT: Final = 10


@dataclass
class Redelivery:
    """Answers messages from their second delivery on.

    :param publish: publishes sealed replies to a reply queue, and returns once they are there.
    :param max_attempts: how often a job may run before it ends as failed.
    :param now: wall clock, Unix seconds.
    """

    pipeline: Pipeline
    ledger: Ledger
    dead_letters: DeadLetters
    publish: Callable[[str, Sequence[SealedReply]], None]
    max_attempts: int
    now: Callable[[], float]

    def answer(self, message: bytes, pack: bytes, deliveries: int) -> int:
        """Answer every job of a message, and return how many were answered.

        :raises MalformedError: the pack as a whole cannot be read.
        :raises DeliveryError: broker or blob store failed; the message must come again.
        :raises Error: a reply can never be published; all others are.
        """
        ident = message_id(message)
        pool, jobs = decode_jobs(pack)
        hopeless = self.hopeless(deliveries)
        answered = failed = 0
        refused: Error | None = None
        for job in jobs:
            replies, given_up = self._one(ident, pool, job, hopeless)
            failed += given_up
            answered += len(replies)
            for reply in replies:
                refused = self._sent(reply) or refused
        if refused is not None:
            raise refused
        if failed:
            self.bury(message, EXHAUSTED, deliveries, failed)
        else:
            self.ledger.forget(ident)
        return answered

    def _sent(self, reply: Reply) -> Error | None:
        """Publish one reply; return why it can never be published: that must not keep its neighbours back."""
        try:
            self.publish(reply.reply_to, [reply.sealed])
        except Error as error:
            if error.retriable:
                raise
            return error
        return None

    def hopeless(self, deliveries: int) -> bool:
        """Return whether a message came so often that its jobs are given up without another try."""
        return deliveries > self.max_attempts * DELIVERIES_PER_ATTEMPT

    def bury(self, message: bytes, code: str, deliveries: int, jobs: int = 0) -> None:
        """Keep a message that nobody can answer as a dead letter.

        :raises DeliveryError: the blob store cannot be reached.
        """
        self.dead_letters.add(DeadLetter(message, code, deliveries, int(self.now()), jobs))
        self.pipeline.meter.dead_letter(code)
        LOG.error("a message was given up and kept as a dead letter: %s", code)

    def _one(self, ident: str, pool: str, job: SealedJob, hopeless: bool) -> tuple[list[Reply], bool]:
        """Return a job's replies (none where its header cannot be read), and whether it was given up."""
        alone, key = encode_jobs(pool, [job]), job.hash
        kept = self._kept(ident, key, job)
        if kept is not None:
            return [kept], False
        # The first delivery was not written down: it is the one attempt more.
        start = 0 if hopeless else self.ledger.start(ident, key)
        given_up = hopeless or start > self.max_attempts - 1
        try:
            replies = self.pipeline.give_up(alone, EXHAUSTED) if given_up else self.pipeline.answer(alone)
        except DeliveryError:  # its key could not be looked for: it never ran
            self.ledger.withdraw(ident, key, start)
            raise
        for reply in replies:
            self.ledger.finish(ident, key, encode_replies(pool, [reply.sealed]))
        return replies, given_up

    def _kept(self, ident: str, key: bytes, job: SealedJob) -> Reply | None:
        stored = self.ledger.reply(ident, key)
        reply_to = self.pipeline.reply_to(job)
        if stored is None or reply_to is None:
            return None
        try:
            pool, (sealed,) = decode_replies(stored)
        except (Error, ValueError):
            return None  # not ours: run it
        if pool != self.pipeline.identity.pool or sealed.job_id != JobHeader.decode(job.header).job_id:
            return None  # another job's
        return Reply(reply_to, sealed)
