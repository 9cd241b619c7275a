"""A ticket: everything a client needs to finish what it submitted, in one file.

The file is a journal of JSON lines, readable by its owner only (mode 0600, because
it holds the reply key's seed): a head, one line per job, one per pack that the
broker took, one per reply that arrived. Each line is on disk before the act that
depends on it, so a client that is killed at any point continues where it stopped:
packs that were not confirmed are submitted again under the same job ids, replies
are deduplicated by job id: the first sound one wins.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
from collections.abc import Iterable, Set
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Final

from ..wire.errors import ConfigurationError, MalformedError
from ..wire.header import JobHeader
from ..wire.keys import SuiteName
from ..wire.pack import SealedReply, decode_jobs, decode_replies, encode_replies
from ..wire.private_keys import PrivateKey

VERSION: Final = 2
_EXISTS: Final = "the ticket exists already: continue it with `ephemeralml results`, or name another"


@dataclass(frozen=True, slots=True)
class TicketHead:
    """What all jobs of a ticket share. ``policy`` is the trust policy's JSON text at submission.

    Where that policy was signed, results are judged by the signed one in force then, not by this copy.

    A batch has an id and the root that was committed to, hexadecimal; its indexes are the jobs' order.
    ``gateway`` is the address of the gateway that the batch goes through, if any; ``window_s`` how many
    seconds it may take.
    """

    pool: str
    reply_to: str
    suite: SuiteName
    seed: str = field(repr=False)
    model: str
    model_hash: str
    not_after: int
    policy: str
    version: int = VERSION
    batch_id: str | None = None
    input_root: str | None = None
    signed_policy: bool = False
    gateway: str | None = None
    window_s: int = 3600


@dataclass(frozen=True, slots=True)
class JobRecord:
    """What the client must remember of one job to judge its answer; all in hexadecimal."""

    job_id: str
    custom_id: str
    job_hash: str
    request_hash: str
    nonce: str
    salt: str = field(repr=False)


class Ticket:
    """A ticket file that is open for appending; only one process holds it at a time.

    Make one with :meth:`create`, continue one with :meth:`load`.
    """

    def __init__(self, file: IO[str], head: TicketHead) -> None:
        self._file = file
        self.head = head
        self.jobs: dict[str, JobRecord] = {}
        self.packs: dict[str, bytes] = {}
        self.pending_packs: dict[str, bytes] = {}
        self.last_submitted = 0.0
        self.replies: dict[str, SealedReply] = {}
        self._missing: set[str] = set()
        #: Whether all was written down that belongs to it; nothing is submitted before.
        self.whole = False
        #: How many ends of the batch were seen at the gateway.
        self.seen = 0

    @classmethod
    def create(cls, path: Path, head: TicketHead) -> Ticket:
        """Create a new ticket file.

        :raises ConfigurationError: ``TICKET_EXISTS`` or ``TICKET_UNWRITABLE``.
        """
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_APPEND, 0o600)
        except FileExistsError:
            raise ConfigurationError(
                "TICKET_EXISTS",
                _EXISTS,
            ) from None
        except OSError as error:
            raise ConfigurationError(
                "TICKET_UNWRITABLE", f"cannot create the ticket: {error.strerror}"
            ) from None
        ticket = cls(_locked(os.fdopen(descriptor, "a+", encoding="utf-8")), head)
        ticket._append([{"head": asdict(head)}])
        return ticket

    @classmethod
    def load(cls, path: Path) -> Ticket:
        """Open an existing ticket file.

        :raises ConfigurationError: ``TICKET_MISSING``, ``TICKET_IN_USE`` or ``TICKET_DAMAGED``.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND)
        except OSError as error:
            raise ConfigurationError("TICKET_MISSING", f"cannot open the ticket: {error.strerror}") from None
        file = _locked(os.fdopen(descriptor, "a+", encoding="utf-8"))
        try:
            lines = _lines(file)
            head = TicketHead(**lines[0]["head"])  # type: ignore[arg-type]
            if head.version != VERSION:
                raise ConfigurationError("TICKET_VERSION", "the ticket is of another version")
            ticket = cls(file, head)
            for line in lines[1:]:
                ticket._apply(line)
        except (KeyError, IndexError, TypeError, ValueError, MalformedError):
            file.close()
            raise ConfigurationError("TICKET_DAMAGED", "the ticket file is damaged") from None
        return ticket

    @property
    def reply_key(self) -> PrivateKey:
        """The private key that results are opened with."""
        return PrivateKey.from_seed(self.head.suite, bytes.fromhex(self.head.seed))

    @property
    def missing(self) -> Set[str]:
        """Job ids (hexadecimal) that no reply has come for; changes as they come."""
        return self._missing

    def plan(self, records: Iterable[JobRecord], packs: Iterable[bytes]) -> None:
        """Write down jobs and the packs that carry them, before anything is submitted."""
        lines: list[dict[str, object]] = [{"job": asdict(record)} for record in records]
        lines += [{"pack": str(len(self.packs) + i), "data": _b64(pack)} for i, pack in enumerate(packs)]
        lines.append({"planned": len(lines)})
        for line in lines:
            self._apply(line)
        self._append(lines)

    def submitted(self, name: str, now: float) -> None:
        """Write down that the broker took a pack, at ``now`` (Unix seconds)."""
        self._record({"submitted": name, "at": now})

    def accepted(self, now: float) -> None:
        """Write down that all packs were taken together, at ``now`` (Unix seconds)."""
        lines: list[dict[str, object]] = [{"submitted": name, "at": now} for name in self.pending_packs]
        self._append(lines)
        for line in lines:
            self._apply(line)

    def unanswered_packs(self) -> dict[str, bytes]:
        """Return the packs, by name, of which a job is still missing."""
        missing = {bytes.fromhex(job_id) for job_id in self.missing}
        return {name: pack for name, pack in self.packs.items() if missing & _job_ids(pack)}

    def received(
        self, pool: str, replies: Iterable[SealedReply], seen: int | None = None
    ) -> list[SealedReply]:
        """Store judged replies that are new and ours; return those.

        Only replies that were found sound belong here: the first one wins, and a
        forged one must not take the place of the real one. They are on disk when this
        returns, so that the message may be acknowledged.

        :param seen: how many ends of the batch were seen at the gateway with these.
        """
        fresh = {
            reply.job_id.hex(): reply
            for reply in replies
            if reply.job_id.hex() in self.jobs and reply.job_id.hex() not in self.replies
        }
        place: dict[str, object] = {} if seen is None or seen == self.seen else {"seen": seen}
        if fresh:
            self._record({"replies": _b64(encode_replies(pool, list(fresh.values()))), **place})
        elif place:
            self._record(place)
        return list(fresh.values())

    def close(self) -> None:
        """Close the file and let others open it."""
        self._file.close()

    def __enter__(self) -> Ticket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _record(self, line: dict[str, object]) -> None:
        self._append([line])
        self._apply(line)

    def _append(self, lines: Iterable[dict[str, object]]) -> None:
        self._file.write("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))
        self._file.flush()
        os.fsync(self._file.fileno())

    def _apply(self, line: dict[str, object]) -> None:
        if "job" in line:
            record = JobRecord(**line["job"])  # type: ignore[arg-type]
            self.jobs[record.job_id] = record
            if record.job_id not in self.replies:
                self._missing.add(record.job_id)
        elif "pack" in line:
            self.packs[str(line["pack"])] = self.pending_packs[str(line["pack"])] = _unb64(line["data"])
        elif "planned" in line:
            self.whole = True
        elif "submitted" in line:
            self.pending_packs.pop(str(line["submitted"]), None)
            self.last_submitted = max(self.last_submitted, float(str(line["at"])))
        elif "replies" in line or "seen" in line:
            self.seen = _count(line.get("seen", self.seen))
            for reply in decode_replies(_unb64(line["replies"]))[1] if "replies" in line else ():
                self.replies.setdefault(reply.job_id.hex(), reply)
                self._missing.discard(reply.job_id.hex())
        else:
            raise KeyError("unknown line")


def _job_ids(pack: bytes) -> set[bytes]:
    return {JobHeader.decode(job.header).job_id for job in decode_jobs(pack)[1]}


def _locked(file: IO[str]) -> IO[str]:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise ConfigurationError("TICKET_IN_USE", "another process is working on this ticket") from None
    return file


def _lines(file: IO[str]) -> list[dict[str, object]]:
    """Return the lines; a last line that a crash cut short is dropped from the file."""
    file.seek(0)
    text = file.read()
    whole = text[: text.rfind("\n") + 1]
    if len(whole) < len(text):
        os.ftruncate(file.fileno(), len(whole.encode()))
    return [json.loads(line) for line in whole.splitlines()]


def _count(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError("not a count")
    return value


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _unb64(value: object) -> bytes:
    if not isinstance(value, str):
        raise ValueError("not a text")
    return base64.b64decode(value, validate=True)
