"""Text that arrives before its result: chunks put in order, and held against the result at the end.

Chunks may be lost, repeated, reordered or withheld; the verified result has the whole text and
decides. Until it is there, text is provisional: it comes from a worker that could open the job,
but no receipt covers it yet (spec/stream.md)::

    with client.plan(fleet, items, path, task="generate") as ticket:   # items ask with stream=True
        client.push(ticket)
        for event in client.stream(ticket, timeout_s=60):
            if isinstance(event, Delta):
                print(event.text, end="")
            else:
                print(event.status, event.assurance)

:class:`JobStream` is the part without a broker: who receives messages otherwise routes chunks to
it by :func:`job_of`, and calls :meth:`JobStream.finish` with the verified result.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

from ..wire.chunk import ChunkHeader, Deltas, decode_chunk, is_chunk, read_deltas
from ..wire.errors import Error, VerificationError
from ..wire.job import Completion
from ..wire.opening import Opener
from ..wire.private_keys import PrivateKey

if TYPE_CHECKING:
    from .judge import JobResult
    from .ticket import JobRecord, Ticket

Event = TypeVar("Event", bound="Delta | JobResult")

#: Runs of one job that are followed at once; a job that keeps being run again needs no more.
MAX_RUNS: Final = 4
#: Chunks of a run that wait for an earlier one; what is beyond comes with the result.
MAX_EARLY: Final = 4096


@dataclass(frozen=True, slots=True)
class Delta:
    """The next piece of a text.

    :param custom_id: of the job. :param input: place of the input that it answers, from 0.
    """

    custom_id: str
    input: int
    text: str


@dataclass(slots=True)
class _Run:
    """What came of one run, in order up to the first gap."""

    next: int = 0
    early: dict[int, tuple[bool, Deltas]] = field(default_factory=dict)
    texts: dict[int, str] = field(default_factory=dict)
    whole: bool = False


class JobStream:
    """Puts one job's chunks in order. For one thread.

    :param record: what the client wrote down of the job. :param pool: that it was sealed for.
    :param opener: of the reply key, with the purpose ``chunk``.
    """

    def __init__(self, record: JobRecord, pool: str, opener: Opener) -> None:
        self._custom_id = record.custom_id
        self._job_id, self._salt = bytes.fromhex(record.job_id), bytes.fromhex(record.salt)
        self._pool, self._opener = pool, opener
        self._runs: dict[bytes, _Run] = {}
        self._given: dict[int, str] = {}
        self.discarded = 0

    @property
    def given(self) -> dict[int, str]:
        """The text handed out so far, by input."""
        return dict(self._given)

    def take(self, message: bytes) -> list[Delta]:
        """Return what a chunk adds to the texts: nothing where it is early, known, or not this job's.

        What cannot be a chunk of this job is counted in :attr:`discarded`, and changes nothing.
        """
        try:
            head, sealed = decode_chunk(message)
            header = ChunkHeader.decode(head)
            if header.job_id != self._job_id or header.pool != self._pool:
                raise VerificationError("CHUNK_NOT_OF_JOB", "a chunk is of another job")
            deltas = read_deltas(self._salt, head, self._opener.open(head, sealed))
        except Error:
            self.discarded += 1
            return []
        run = self._runs.get(header.run)
        if run is None:
            if len(self._runs) >= MAX_RUNS:
                return []
            run = self._runs[header.run] = _Run()
        if header.index >= run.next and len(run.early) < MAX_EARLY:
            run.early.setdefault(header.index, (header.last, deltas))
        return self._advance(run)

    def finish(self, result: JobResult) -> list[Delta]:
        """Return the rest of the texts from the job's verified result.

        :raises VerificationError: ``STREAM_MISMATCH``: what was handed out is not the result's beginning,
            or a whole run says something else. The result itself is sound.
        """
        if result.response is None:
            return []
        texts = {
            place: output.text
            for place, output in enumerate(result.response.outputs)
            if isinstance(output, Completion)
        }
        beginnings = all(texts.get(place, "").startswith(text) for place, text in self._given.items())
        for run in self._runs.values():
            said = {place: text for place, text in run.texts.items() if text}
            if run.whole and self._agrees(run) and said != {p: t for p, t in texts.items() if t}:
                beginnings = False
        if not beginnings:
            raise VerificationError(
                "STREAM_MISMATCH", "the streamed text is not the result's; the result alone counts"
            )
        return [delta for place, text in texts.items() if (delta := self._more(place, text))]

    def _advance(self, run: _Run) -> list[Delta]:
        places: dict[int, None] = {}
        while (found := run.early.pop(run.next, None)) is not None:
            last, deltas = found
            run.next += 1
            run.whole = run.whole or last
            for place, text in deltas:
                run.texts[place] = run.texts.get(place, "") + text
                places[place] = None
        if not self._agrees(run):
            return []  # another run of the job drew other words: the result says which ones count
        return [delta for place in places if (delta := self._more(place, run.texts[place]))]

    def _agrees(self, run: _Run) -> bool:
        """Whether a run goes on from, or has not come to, what was handed out."""
        return all(
            run.texts.get(place, "").startswith(text) or text.startswith(run.texts.get(place, ""))
            for place, text in self._given.items()
        )

    def _more(self, place: int, text: str) -> Delta | None:
        given = self._given.get(place, "")
        if len(text) <= len(given):
            return None
        self._given[place] = text
        return Delta(self._custom_id, place, text[len(given) :])


def job_of(message: bytes) -> bytes | None:
    """Return the id of the job that a message says it is a chunk of; None where it is no chunk.

    :param message: what :class:`~ephemeralml.broker_config.replies.ReplyQueue` received.
    """
    if not is_chunk(message):
        return None
    try:
        return ChunkHeader.decode(decode_chunk(message)[0]).job_id
    except Error:
        return None


class TicketStreams:
    """The streams of all jobs of a ticket."""

    def __init__(self, ticket: Ticket) -> None:
        key: PrivateKey = ticket.reply_key
        opener = Opener([key], "chunk")
        pool = ticket.head.pool
        self._streams = {job_id: JobStream(record, pool, opener) for job_id, record in ticket.jobs.items()}

    def take(self, message: bytes) -> list[Delta]:
        """Return what a chunk adds, whichever job it is of."""
        job_id = job_of(message)
        stream = None if job_id is None else self._streams.get(job_id.hex())
        return [] if stream is None else stream.take(message)

    def finish(self, result: JobResult) -> list[Delta]:
        """Return the rest of a job's texts; see :meth:`JobStream.finish`. Its later chunks add nothing."""
        stream = self._streams.pop(result.job_id.hex(), None)
        return [] if stream is None else stream.finish(result)


async def in_threads(iterator: Iterator[Event]) -> AsyncIterator[Event]:
    """Drive a stream from asyncio: each step runs in a thread."""
    while (event := await asyncio.to_thread(next, iterator, None)) is not None:
        yield event
