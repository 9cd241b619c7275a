"""The broker goes away and comes back on the same port: idle, under load, and for how long whoever asks."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from ephemeralml.producer.lab import Lab

from .fleet import Fleet, Zygote, collect, fleet, site, until

#: How long the broker stays away; ``make chaos`` asks for 30.
OUTAGE_VARIABLE = "EPHEMERALML_TEST_OUTAGE_SECONDS"
JOBS = 320


@pytest.fixture
def outage() -> float:
    return float(os.environ.get(OUTAGE_VARIABLE, "1.5"))


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, Zygote]]:
    with site(tmp_path_factory.mktemp("ground")) as made:
        yield made


@pytest.fixture
def pair(ground: tuple[Lab, Zygote], tmp_path: Path) -> Iterator[Fleet]:
    with fleet(*ground, tmp_path) as made:
        made.start(2)
        yield made


def away(pair: Fleet, how: signal.Signals, seconds: float) -> None:
    pair.server.end(how)
    time.sleep(seconds)
    pair.server.start()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_under_load(pair: Fleet, how: signal.Signals, outage: float) -> None:
    """Messages are in work, replies and acknowledgements on their way when the broker goes."""
    client = pair.client()
    with pair.held():
        ticket = pair.submit(client, JOBS, pack_jobs=4)
    with ticket:
        until(lambda: (pair.depth.waiting or 0) < JOBS / 4 * 0.8, about=lambda: pair.about)
        assert pair.depth.waiting, "the load was over before the broker went"
        away(pair, how, outage)
        ends = collect(client, ticket, seconds=120)
    assert Counter(end.status for end in ends.values()) == {"succeeded": JOBS}
    until(
        lambda: (pair.depth.waiting, pair.depth.in_flight) == (0, 0),
        about=lambda: f"{pair.depth}\n{pair.about}",
    )
    for worker in pair.workers:
        worker.signal(signal.SIGTERM)
        assert worker.end() == 0


def test_while_idle(pair: Fleet, outage: float) -> None:
    away(pair, signal.SIGKILL, outage)
    client = pair.client()
    with pair.submit(client, 64) as ticket:
        ends = collect(client, ticket, seconds=120)
    assert Counter(end.status for end in ends.values()) == {"succeeded": 64}


def test_a_worker_can_be_stopped_while_the_broker_is_away(pair: Fleet) -> None:
    """With nothing in work; the grace time bounds the rest."""
    pair.server.end(signal.SIGKILL)
    for worker in pair.workers:
        worker.signal(signal.SIGTERM)
    assert {worker.end() for worker in pair.workers} == {0}
    pair.server.start()
