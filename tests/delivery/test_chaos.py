"""A short chaos on a real Redis, and an auditor that is itself put to the test."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ephemeralml.producer.lab import Lab
from ephemeralml.wire.pack import SealedReply, decode_replies, encode_replies

from . import brokers
from .auditor import audit
from .chaos import SETTINGS, run
from .site import CANARY, Site, site


@pytest.mark.parametrize(("name", "seconds"), [("redis", 12), ("sqs", 12), ("pubsub", 12)])
def test_nothing_is_lost_or_double_whatever_is_done(
    small_lab: Lab, tmp_path: Path, name: str, seconds: int
) -> None:
    with (
        brokers.BROKERS[name](tmp_path / "broker") as broker,
        site(small_lab, broker, tmp_path / "site", **SETTINGS) as place,
    ):
        report = run(place, seconds=seconds, jobs=60, seed=20261123, outage_s=2)
    print(report.lines())
    assert report.findings.clean, report.lines()
    assert report.findings.jobs >= 60
    assert report.faults.total() >= 5
    assert set(report.findings.ends) == {"succeeded"}


@pytest.fixture(scope="module")
def answered(small_lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Path]]:
    """A site, and a ticket all of whose jobs are answered."""
    folder = tmp_path_factory.mktemp("answered")
    with brokers.redis(folder / "broker") as broker, site(small_lab, broker, folder / "site") as place:
        place.worker().ready()
        client = place.client()
        with place.plan(client, "audited", 4) as ticket:
            client.push(ticket)
            assert len(list(client.results(ticket, 60))) == 4
        yield place, folder / "site" / "audited.ticket"


Replies = list[SealedReply]


def flipped(reply: SealedReply) -> SealedReply:
    return replace(reply, outcome=reply.outcome[:-1] + bytes([reply.outcome[-1] ^ 1]))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda replies: [replies], {}),
        (lambda replies: [replies[1:]], {"lost": 1}),
        (lambda replies: [replies, replies[:2]], {"double": 2}),
        (lambda replies: [[flipped(replies[0]), *replies[1:]]], {"unsound": 1}),
        (lambda replies: [[replace(replies[0], sealed=replies[1].sealed), *replies[1:]]], {"unsound": 1}),
    ],
    ids=["untouched", "lost", "double", "forged", "swapped"],
)
def test_the_auditor_sees(
    answered: tuple[Site, Path], change: Callable[[Replies], list[Replies]], expected: dict[str, int]
) -> None:
    place, original = answered
    ticket = original.with_name("changed") / original.name
    ticket.parent.mkdir(exist_ok=True)
    ticket.write_text(rewritten(original, change))
    findings = audit(place.client(), [ticket], [], int(time.time()))
    found = {name: getattr(findings, name) for name in ("lost", "double", "unsound", "wrong")}
    assert found == {"lost": 0, "double": 0, "unsound": 0, "wrong": 0} | expected
    assert findings.clean == (not expected)


def rewritten(ticket: Path, change: Callable[[Replies], list[Replies]]) -> str:
    """Return a ticket's file with its replies changed."""
    kept: list[str] = []
    replies: Replies = []
    pool = ""
    for line in ticket.read_text().splitlines():
        entry = json.loads(line)
        if "replies" in entry:
            pool, more = decode_replies(base64.b64decode(entry["replies"]))
            replies += more
        else:
            kept.append(line)
    for pack in change(replies):
        kept.append(json.dumps({"replies": base64.b64encode(encode_replies(pool, pack)).decode()}))
    return "\n".join(kept) + "\n"


@pytest.mark.parametrize("offset", range(3))
def test_the_auditor_finds_plaintext_in_any_dress(
    answered: tuple[Site, Path], tmp_path: Path, offset: int
) -> None:
    place, _ = answered
    text = b"-" * offset + CANARY.encode() + b"!"
    dresses = {"plain": text, "hex": text.hex().encode(), "base64": base64.b64encode(text)}
    for name, dress in dresses.items():
        (tmp_path / name).write_bytes(b"\x00" * 7 + dress)
    (tmp_path / "clean").write_bytes(b"nothing here")
    findings = audit(place.client(), [], [tmp_path], int(time.time()))
    assert sorted(findings.leaks) == sorted(dresses)
