"""A queue whose length nobody can say: it counts as empty when nothing has come for a while."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from celery.worker import state

from ephemeralml.broker_config.carriers import Depth
from ephemeralml.workers.drain import Drain

UNKNOWN = Depth(waiting=None, in_flight=None, exact=False)


@pytest.mark.parametrize("depth", [UNKNOWN, Depth(0, 0)], ids=["unknown", "exact"])
def test_short_work_between_two_looks_is_work(depth: Depth, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "should_stop", None)
    clock, total = [0.0], [0]
    monkeypatch.setattr(state, "all_total_count", total)

    def sleep(seconds: float) -> None:
        clock[0] += seconds
        if clock[0] < 30:
            total[0] += 1  # taken and answered while nobody looked

    own = SimpleNamespace(sleep=sleep, monotonic=lambda: clock[0])
    monkeypatch.setattr("ephemeralml.workers.drain.time", own)
    Drain(lambda: depth, lambda: 0, idle_seconds=3).run()
    assert state.should_stop == 0
    assert clock[0] >= 32
