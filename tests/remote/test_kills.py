"""``batch submit --wait`` killed at twenty random points: the same command goes on, nothing is double."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

from ephemeralml.producer.ticket import Ticket

from ..delivery.brokers import until
from ..delivery.nursery import Worker
from ..delivery.site import text
from .stand import Stand

KILLS = 20
JOBS = 300


def command(there: Stand, folder: Path) -> Worker:
    """Run what a user runs, and again after every crash."""
    environment = {**os.environ, **there.cli}
    arguments = ("batch", "submit", str(folder / "in.jsonl"), "--pool", "minilm", "--pack", "4", "--wait")
    return there.site.nursery.start(environment, *arguments)


def test_a_client_that_is_killed_at_any_point_goes_on(there: Stand, tmp_path: Path) -> None:
    lines = [json.dumps({"id": str(n), "text": text("killed", n)}) for n in range(JOBS)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines) + "\n")
    results = tmp_path / "in.jsonl.results.jsonl"
    started = time.monotonic()
    command(there, tmp_path).ended()
    whole_s = time.monotonic() - started
    first = results.read_text()
    assert len(first.splitlines()) == JOBS
    names = {batch.name for batch in there.client().api.batches(100)}
    killed = finished = 0
    chance = random.Random(11)  # noqa: S311 - the same every time
    while killed < KILLS:
        if results.exists():  # that run came to its end: begin another batch
            results.unlink()
            (tmp_path / "in.jsonl.ticket").unlink()
            finished += 1
        worker = command(there, tmp_path)
        begun, patience_s = time.monotonic(), chance.uniform(0, whole_s)
        while worker.alive and time.monotonic() - begun < patience_s:
            time.sleep(0.01)
        if not worker.alive:  # sooner than the first run, when the machine had more to do
            whole_s = time.monotonic() - begun
        else:
            worker.signal(signal.SIGKILL)
            until(lambda worker=worker: not worker.alive)  # type: ignore[misc]
            killed += 1
    if not results.exists():
        command(there, tmp_path).ended()
        finished += 1
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    assert [row["id"] for row in rows] == [str(n) for n in range(JOBS)]
    assert {row["status"] for row in rows} == {"succeeded"}
    with Ticket.load(tmp_path / "in.jsonl.ticket") as ticket:
        assert not ticket.missing
        assert len(ticket.replies) == JOBS
    # Each batch that came to an end went up once; one that was killed while it sealed never did.
    batches = [batch for batch in there.client().api.batches(100) if batch.name not in names]
    assert all(batch.counts["total"] == JOBS for batch in batches)
    assert len(batches) <= finished + 1
