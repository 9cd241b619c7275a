"""Judges replies as they come, stores the sound ones, and says what could not be judged yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ..wire.errors import AppraisalError, DeliveryError, EndorsementsError, Error, FetchError
from ..wire.opening import Opener
from ..wire.pack import SealedReply
from .judge import JobResult, Judge
from .ticket import Ticket
from .trust import Trust


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of some replies.

    :param results: of the sound ones, which are in the ticket. :param judged: whether all could be judged: a
        reply whose evidence cannot be found may be real, so it must come again.
    """

    results: list[JobResult]
    judged: bool


class Collector:
    """Collects the replies of one ticket.

    :param now: wall clock, Unix seconds. :param discard: told of each reply that does not verify.
    """

    def __init__(
        self, ticket: Ticket, trust: Trust, now: Callable[[], float], discard: Callable[[], None]
    ) -> None:
        self._ticket = ticket
        self._trust = trust
        self._now = now
        self._judge = Judge(ticket.head, trust, Opener([ticket.reply_key], "result"))
        self._discard = discard

    def stored(self) -> Iterator[JobResult]:
        """Judge what earlier runs stored again: the policy in force may have withdrawn its trust."""
        for job_id, reply in list(self._ticket.replies.items()):
            try:
                yield self._judge.judge(self._ticket.jobs[job_id], reply, int(self._now()))
            except AppraisalError:
                self._trust.current()
                self._discard()

    def take(self, replies: Sequence[SealedReply], seen: int | None = None) -> Taken:
        """Judge replies and store the sound ones; they are on disk when this returns.

        :param seen: how many ends of a batch were seen with these; kept where all could be judged.
        :raises FetchError: :raises DeliveryError: nothing was judged nor stored; they must come again.
        :raises AppraisalError: the policy in force has ended: likewise.
        """
        ticket, judged = self._ticket, True
        sound: dict[str, tuple[SealedReply, JobResult]] = {}  # a host may show a reply twice at once
        for reply in replies:
            record = ticket.jobs.get(reply.job_id.hex())
            if record is None or record.job_id not in ticket.missing or record.job_id in sound:
                continue
            try:
                sound[record.job_id] = reply, self._judge.judge(record, reply, int(self._now()))
            except (FetchError, DeliveryError):
                raise
            except AppraisalError:
                self._trust.current()  # without a policy in force nothing was judged either
                self._discard()
            except EndorsementsError:
                judged = False
            except Error:
                self._discard()
        ticket.received(ticket.head.pool, [reply for reply, _ in sound.values()], seen if judged else None)
        return Taken([result for _, result in sound.values()], judged)
