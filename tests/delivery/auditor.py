"""The auditor: reads what a client has (its ticket, its policy, archived evidence), and nothing else.

It judges every reply in a ticket's file again, counts how often each job has ended,
and looks for plaintext where only the host writes.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ephemeralml.producer.client import Client
from ephemeralml.producer.judge import Judge
from ephemeralml.producer.ticket import Ticket
from ephemeralml.wire.errors import Error
from ephemeralml.wire.opening import Opener
from ephemeralml.wire.pack import decode_replies

from .site import CANARY, right


@dataclass
class Findings:
    """What an audit found."""

    jobs: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    double: int = 0
    unsound: int = 0
    wrong: int = 0
    leaks: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether each job has one sound end, and nothing was seen by the host."""
        return not (self.lost or self.double or self.unsound or self.wrong or self.leaks)


def audit(client: Client, tickets: Iterable[Path], host_sees: Iterable[Path], now: int) -> Findings:
    """Judge all tickets, and search what the host can read.

    :param host_sees: files and folders. :param now: Unix seconds.
    """
    findings = Findings()
    for path in tickets:
        with Ticket.load(path) as ticket:
            _judge(findings, client, ticket, path, now)
    findings.leaks = [name for place in host_sees for name in leaks(place)]
    return findings


def _judge(findings: Findings, client: Client, ticket: Ticket, path: Path, now: int) -> None:
    findings.jobs += len(ticket.jobs)
    findings.lost += len(ticket.missing)
    findings.double += sum(count > 1 for count in _ends(path).values())
    judge = Judge(ticket.head, client.trust, Opener([ticket.reply_key], "result"))
    for job_id, reply in ticket.replies.items():
        try:
            result = judge.judge(ticket.jobs[job_id], reply, now)
        except Error as error:
            findings.unsound += 1
            findings.ends[error.code] += 1
            continue
        findings.ends[f"{result.status} {result.code}".strip()] += 1
        findings.wrong += result.status == "succeeded" and not right(path.stem, result)


def _ends(path: Path) -> Counter[bytes]:
    """Count how often a ticket's file has taken an end for each job."""
    ends: Counter[bytes] = Counter()
    for line in path.read_text("utf-8").splitlines():
        entry = json.loads(line)
        if "replies" in entry:
            ends.update(reply.job_id for reply in decode_replies(base64.b64decode(entry["replies"]))[1])
    return ends


def leaks(place: Path) -> list[str]:
    """Return the names of files under a place that hold a job's plaintext."""
    needles = [CANARY.encode(), CANARY.encode().hex().encode(), CANARY.encode("utf-16-le")]
    # Base64 of a text that may begin at any of three offsets.
    needles += [base64.b64encode(b"x" * offset + CANARY.encode())[4:-4] for offset in range(3)]
    files = [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())
    return [path.name for path in files if any(needle in path.read_bytes() for needle in needles)]
