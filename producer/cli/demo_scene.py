"""What every attempt of the demo ``--hostile`` is given: a client with jobs, and a host to withstand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Final

from ...receipts.outcome import read_outcome
from ...wire.errors import Error
from ...wire.opening import Opener
from ...wire.pack import SealedReply
from ..client import Client
from ..inputs import InputItem
from ..judge import JobResult, Judge
from ..lab import POOL, Lab
from ..ticket import Ticket
from ..trust import VerifiedFleet
from .demo_host import Host

#: Named like the real pool in length, so that its name can be written over the other in place.
OTHER_POOL: Final = "shadow"
VISIBILITY_S: Final = 2
ANSWER_S: Final = 45.0
#: Stands in every input, so that a search for it finds every plaintext.
MARK: Final = "canary-72b1c0de-OCELOT-patient-name"


class NotMet(Exception):
    """An attempt that got through, or ended otherwise than it must."""


@dataclass(frozen=True, slots=True)
class Met:
    """What an attempt met.

    :param code: the stable code of the refusal, or ``""`` where nothing had to be refused.
    :param words: what came of it, in a few words.
    """

    code: str
    words: str


@dataclass
class Scene:
    """The laboratory during one hostile demo."""

    lab: Lab
    client: Client
    fleet: VerifiedFleet
    host: Host
    start_worker: Callable[[str], str]
    _numbers: Iterator[int] = field(default_factory=count)
    _files: dict[str, Path] = field(default_factory=dict)

    @contextmanager
    def planned(self, jobs: int = 1, *, lifetime_s: int = 3600) -> Iterator[Ticket]:
        """Seal some jobs; nothing is submitted yet."""
        number = next(self._numbers)
        items = [InputItem(str(place), (f"{MARK} {number}.{place}",)) for place in range(jobs)]
        path = self.lab.folder / f"hostile-{number}.ticket"
        with self.client.plan(self.fleet, items, path, lifetime_s=lifetime_s, pack_jobs=1) as ticket:
            self._files[ticket.head.reply_to] = path
            yield ticket

    @contextmanager
    def intercepted(self, *, lifetime_s: int = 3600) -> Iterator[tuple[Ticket, bytes]]:
        """Submit one job while the workers are stopped; yield its ticket and the message the host took."""
        with self.planned(lifetime_s=lifetime_s) as ticket, self.host.stopped():
            self.client.push(ticket)
            entry = self.host.take(POOL)
            if next(iter(ticket.packs.values())) not in entry:
                raise NotMet("the message is not the client's, as it was sealed")
            yield ticket, entry

    @contextmanager
    def answered(self, jobs: int = 1) -> Iterator[tuple[Ticket, list[SealedReply]]]:
        """Submit jobs; yield their ticket and the replies, which the host took before the client could."""
        with self.planned(jobs) as ticket:
            self.client.push(ticket)
            yield ticket, self.host.take_replies(ticket.head.reply_to, jobs)

    def file(self, ticket: Ticket) -> Path:
        """Return a ticket's file."""
        return self._files[ticket.head.reply_to]

    def ends(self, ticket: Ticket, timeout_s: float = ANSWER_S) -> list[JobResult]:
        """Return what the client hands out for a ticket."""
        return list(self.client.results(ticket, timeout_s))

    def refusal(self, ticket: Ticket, reply: SealedReply) -> str:
        """Return the code by which the client's judge refuses a reply.

        :raises NotMet: it is handed out.
        """
        judge = Judge(ticket.head, self.client.trust, Opener([ticket.reply_key], "result"))
        try:
            judge.judge(ticket.jobs[reply.job_id.hex()], reply, int(self.client.now()))
        except Error as error:
            return error.code
        raise NotMet("the client's judge let it pass")

    def discarded(self, ticket: Ticket, forged: SealedReply, honest: SealedReply) -> Met:
        """Deliver a forged reply and the honest one behind it; the client must hand out the honest one.

        :raises NotMet: it does otherwise.
        """
        code, before = self.refusal(ticket, forged), self.client.discarded
        for reply in (forged, honest):
            self.host.put_replies(ticket.head.reply_to, ticket.head.pool, [reply])
        succeeded(self.ends(ticket), 1)
        if self.client.discarded != before + 1:
            raise NotMet("the client did not count a discarded reply")
        return Met(code, "discarded by the client; the honest answer counts")

    def refused_by_worker(self, reply_to: str, pool: str = POOL) -> Met:
        """Take one reply as the host: it must be an outcome that a worker of ``pool`` signed, no result.

        :raises NotMet: it is a result, or none that its worker's attested key has signed.
        """
        (reply,) = self.host.take_replies(reply_to)
        unverified = read_outcome(reply.outcome)
        worker = self.client.trust.worker(pool, unverified.claimed.attestation_doc_hash)
        outcome = unverified.verify(worker.body.receipt_key)
        if outcome.status == "succeeded" or reply.sealed is not None:
            raise NotMet("the job was run")
        return Met(outcome.code, f"not run; the worker signed '{outcome.status}'")


def succeeded(results: list[JobResult], wanted: int) -> None:
    """Hold that so many jobs came, and that all succeeded.

    :raises NotMet: they did not.
    """
    ends = [result.status for result in results]
    if ends != ["succeeded"] * wanted:
        raise NotMet(f"{wanted} answer(s) were due, and came as {ends}")


def flipped(data: bytes) -> bytes:
    """Return bytes with one bit of their last changed."""
    return data[:-1] + bytes([data[-1] ^ 1])


def altered(reply: SealedReply) -> SealedReply:
    """Return a reply with one bit of its sealed result changed."""
    if reply.sealed is None:
        raise NotMet("the reply holds no result")
    return replace(reply, sealed=replace(reply.sealed, ciphertext=flipped(reply.sealed.ciphertext)))
