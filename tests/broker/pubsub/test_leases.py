"""Leases by a recorded counterpart: what is told to Pub/Sub, and what is told again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import pytest

from ephemeralml.broker_config.pubsub import leases as module
from ephemeralml.broker_config.pubsub.calls import Calls, Lost, Missing
from ephemeralml.broker_config.pubsub.leases import Leases
from ephemeralml.broker_config.signs import SIGNS


class Recorded:
    """Takes the calls that leases make."""

    def __init__(self) -> None:
        self.told: list[tuple[str, tuple[str, ...], int | None]] = []
        self.fault: Exception | None = None
        self.tries = 0

    def acknowledge(self, subscription: str, ids: Sequence[str]) -> None:
        self._tell("ack", ids, None)

    def lease(self, subscription: str, ids: Sequence[str], seconds: int) -> None:
        self._tell("lease", ids, seconds)

    def _tell(self, what: str, ids: Sequence[str], seconds: int | None) -> None:
        self.tries += 1
        if self.fault is not None:
            raise self.fault
        self.told.append((what, tuple(ids), seconds))

    def ids(self, what: str, seconds: int | None) -> list[str]:
        """Return the ids of one kind of call, in order."""
        told = list(self.told)
        return [one for kind, ids, given in told if (kind, given) == (what, seconds) for one in ids]


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    return Recorded()


@pytest.fixture
def make(recorded: Recorded) -> Iterator[Callable[..., Leases]]:
    made: list[Leases] = []

    def leases(lease_s: float = 600, max_lease_s: float = 3600, kept: Any = lambda _: True) -> Leases:
        made.append(Leases(cast("Calls", recorded), "s", lease_s, max_lease_s, kept))
        return made[-1]

    yield leases
    recorded.fault = None
    for one in made:
        one.close(10)


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.005)


def test_each_end_is_told_once(recorded: Recorded, make: Callable[..., Leases]) -> None:
    leases = make()
    for tag in "abc":
        leases.take(tag, f"id-{tag}")
    leases.acknowledge("a")
    leases.acknowledge("a")
    leases.give_back("b")
    leases.acknowledge("b")
    leases.give_back("unknown")
    leases.drop("id-junk")
    leases.close(30)
    assert sorted(recorded.ids("ack", None)) == ["id-a", "id-junk"]
    assert recorded.ids("lease", 0) == ["id-b"]
    assert not recorded.ids("lease", 600)


def test_what_is_in_work_is_extended_and_nothing_else(
    recorded: Recorded, make: Callable[..., Leases]
) -> None:
    before = SIGNS.leases_extended
    leases = make(1, 3600, lambda tag: tag != "left")
    leases.take("kept", "id-kept")
    leases.take("left", "id-left")
    until(lambda: recorded.ids("lease", 1).count("id-kept") >= 2)
    assert "id-left" not in recorded.ids("lease", 1)
    until(lambda: SIGNS.leases_extended >= before + 2)
    leases.acknowledge("kept")
    until(lambda: recorded.ids("ack", None) == ["id-kept"])


def test_no_lease_is_extended_beyond_the_longest(recorded: Recorded, make: Callable[..., Leases]) -> None:
    leases = make(1, 0.1)
    leases.take("old", "id-old")
    young = make(1)
    young.take("young", "id-young")
    until(lambda: recorded.ids("lease", 1).count("id-young") >= 2)
    assert "id-old" not in recorded.ids("lease", 1)
    leases.acknowledge("old")
    until(lambda: recorded.ids("ack", None) == ["id-old"])


def test_an_acknowledgement_outlives_an_outage(recorded: Recorded, make: Callable[..., Leases]) -> None:
    leases = make()
    recorded.fault = Lost()
    leases.take("a", "id-a")
    leases.take("b", "id-b")
    leases.acknowledge("a")
    leases.give_back("b")
    until(lambda: recorded.tries >= 3)
    recorded.fault = None
    until(lambda: recorded.ids("ack", None) == ["id-a"] and recorded.ids("lease", 0) == ["id-b"])


def test_what_is_refused_for_good_is_not_told_for_ever(
    recorded: Recorded, make: Callable[..., Leases]
) -> None:
    leases = make()
    recorded.fault = Missing()
    leases.take("a", "id-a")
    leases.acknowledge("a")
    until(lambda: recorded.tries == 1)
    recorded.fault = None
    leases.take("b", "id-b")
    leases.acknowledge("b")
    until(lambda: recorded.ids("ack", None) == ["id-b"])


def test_closing_during_an_outage_ends(recorded: Recorded, make: Callable[..., Leases]) -> None:
    leases = make()
    recorded.fault = Lost()
    leases.take("a", "id-a")
    leases.acknowledge("a")
    leases.close(0.05)
    until(lambda: "pubsub-leases" not in [thread.name for thread in threading.enumerate()])
