"""Half of a fleet goes away under load: nothing is lost, and nobody gets anything twice."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ephemeralml.producer.judge import Judge
from ephemeralml.receipts.outcome import peek_outcome
from ephemeralml.wire.opening import Opener

from .fleet import Fleet, fleet, receive, site, until

JOBS = 10_000


@pytest.fixture
def four(tmp_path: Path) -> Iterator[Fleet]:
    with site(tmp_path) as (lab, zygote), fleet(lab, zygote, tmp_path) as made:
        yield made


def test_half_of_the_fleet_leaves_while_ten_thousand_jobs_run(four: Fleet) -> None:
    leaving, killed, *_ = four.start(4)
    client = four.client()
    with four.held():
        ticket = four.submit(client, JOBS)
    with ticket:
        until(lambda: (four.depth.waiting or 0) < 280, about=lambda: four.about)
        leaving.signal(signal.SIGTERM)
        killed.signal(signal.SIGKILL)
        assert four.depth.waiting, "the load was over before anybody left"
        replies = receive(four.server.settings, ticket, 120)
        assert (leaving.end(), killed.end()) == (0, -signal.SIGKILL)
        assert replies.keys() == ticket.jobs.keys()
        assert {peek_outcome(reply.outcome).status for reply in replies.values()} == {"succeeded"}
        # Judging all would take longer than all the rest.
        judge = Judge(ticket.head, client.trust, Opener([ticket.reply_key], "result"))
        for job_id in list(replies)[::50]:
            assert judge.judge(ticket.jobs[job_id], replies[job_id], int(time.time())).status == "succeeded"
    until(lambda: (four.depth.waiting, four.depth.in_flight) == (0, 0), about=lambda: str(four.depth))
    assert "stopped: keys dropped" in leaving.text
    assert not any("given up" in worker.text for worker in four.workers)
