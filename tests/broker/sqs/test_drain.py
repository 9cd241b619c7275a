"""A queue whose depth is an estimate: one zero is not an empty queue."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import pytest
from celery.worker import state

from ephemeralml.broker_config.carriers import Depth
from ephemeralml.wire.errors import DeliveryError
from ephemeralml.workers.drain import ESTIMATE_LOOKS, Drain


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("kind", ["zeros", "a late message", "an outage", "work"])
def test_an_estimate_must_be_zero_several_times_in_a_row(
    kind: str, exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "should_stop", None)
    clock = [0.0]
    own = SimpleNamespace(
        sleep=lambda seconds: clock.__setitem__(0, clock[0] + seconds), monotonic=lambda: clock[0]
    )
    monkeypatch.setattr("ephemeralml.workers.drain.time", own)
    looks: list[float] = []

    def depth() -> Depth:
        looks.append(clock[0])
        if kind == "an outage" and len(looks) == 4:
            raise DeliveryError("BROKER_UNREACHABLE")
        return Depth(waiting=int(kind == "a late message" and len(looks) == 4), in_flight=0, exact=exact)

    Drain(depth, lambda: int(kind == "work" and clock[0] < 8), idle_seconds=0.25).run()
    assert state.should_stop == 0
    if exact:
        assert len(looks) == 1
    else:
        assert len(looks) == (ESTIMATE_LOOKS if kind in ("zeros", "work") else 4 + ESTIMATE_LOOKS)
        assert min(later - earlier for earlier, later in pairwise(looks)) >= 1
