"""What the watchdog concludes from what it sees; nothing here has a clock."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ephemeralml.broker_config.carriers import Depth
from ephemeralml.wire.errors import DeliveryError
from ephemeralml.wire.exit_codes import UNAVAILABLE
from ephemeralml.workers.lookout import Lookout
from ephemeralml.workers.pulse import Pulse, StalledError
from ephemeralml.workers.watchdog import (
    INEXACT_FACTOR,
    LATE_SECONDS,
    RECONNECT_SECONDS,
    Look,
    Symptom,
    Verdict,
    Watchdog,
    symptom_of,
)

AFTER = 60.0
LEASE = 3600.0
PERIOD = 15.0
HEALTHY = Look(
    now=1000,
    connected=True,
    starts=1,
    turned=1000,
    delivered=999,
    in_work=0,
    slots=2,
    reachable=True,
    waiting=0,
)
STARVING = replace(HEALTHY, waiting=3, delivered=500)
HUNG = replace(HEALTHY, turned=900)
LOST = replace(HEALTHY, connected=False)


def course(look: Look, seconds: float, dog: Watchdog | None = None) -> list[tuple[float, Verdict]]:
    """Show the same look again and again, and return what was to be done and when."""
    dog = dog or Watchdog(AFTER, LEASE)
    done: list[tuple[float, Verdict]] = []
    for step in range(int(seconds / PERIOD) + 1):
        at = step * PERIOD
        turned = look.turned + at if look.turned == look.now else look.turned
        verdict = dog.judge(replace(look, now=look.now + at, turned=turned))
        if verdict:
            done.append((at, verdict))
    return done


@pytest.mark.parametrize(
    ("look", "symptom"),
    [
        (HEALTHY, ""),
        (STARVING, "starving"),
        (replace(STARVING, in_work=1), "starving"),
        (replace(STARVING, in_work=2), ""),
        (replace(STARVING, waiting=None), ""),
        (replace(STARVING, reachable=False), ""),
        (HUNG, "hung"),
        (replace(HUNG, turned=1000 - LATE_SECONDS), ""),
        (replace(HUNG, reachable=False), ""),
        (LOST, "lost"),
        (replace(LOST, reachable=False), ""),
    ],
)
def test_symptoms(look: Look, symptom: Symptom) -> None:
    assert symptom_of(look) == symptom


@pytest.mark.parametrize(
    ("look", "patience"),
    [
        (STARVING, AFTER),
        (replace(STARVING, exact=False), AFTER * INEXACT_FACTOR),
        (HUNG, AFTER),
        (LOST, AFTER + RECONNECT_SECONDS),
    ],
)
def test_first_the_consumer_is_restarted_then_the_process_ends(look: Look, patience: float) -> None:
    (first, verdict), (second, last) = course(look, 3 * patience + RECONNECT_SECONDS)[:2]
    assert (verdict, last) == ("restart", "leave")
    assert first >= patience
    assert second - first >= AFTER + RECONNECT_SECONDS  # the restart was never taken up


def test_a_consumer_that_was_built_anew_in_vain_is_given_the_same_patience() -> None:
    dog = Watchdog(AFTER, LEASE)
    assert course(STARVING, AFTER, dog) == [(AFTER, "restart")]
    anew = replace(STARVING, now=1100, turned=1100, starts=2)
    assert course(anew, AFTER, dog) == [(AFTER, "leave")]


def test_a_restart_that_helps_is_the_end_of_it() -> None:
    dog = Watchdog(AFTER, LEASE)
    assert [verdict for _, verdict in course(STARVING, AFTER, dog)] == ["restart"]
    better = replace(STARVING, now=1100, turned=1100, delivered=1100)
    assert dog.judge(better) == ""
    assert dog.judge(replace(better, waiting=0)) == ""
    # Much later it happens again: once more it begins with a restart.
    again = course(replace(STARVING, now=5000, turned=5000, delivered=4000), AFTER, dog)
    assert [verdict for _, verdict in again] == ["restart"]
    assert dog.restarts == {"hung": 0, "starving": 2, "lost": 0}


def test_what_is_in_work_is_not_thrown_away_until_its_lease_is_over() -> None:
    done = course(replace(STARVING, in_work=1), LEASE + 2 * AFTER)
    assert [verdict for _, verdict in done[:2]] == ["restart", "leave"]
    assert done[1][0] >= LEASE


@given(
    st.lists(
        st.builds(
            Look,
            now=st.just(0.0),
            connected=st.booleans(),
            starts=st.integers(0, 3),
            turned=st.floats(0, 1e5),
            delivered=st.just(7.0),
            in_work=st.integers(0, 3),
            slots=st.just(2),
            reachable=st.booleans(),
            waiting=st.none() | st.integers(0, 9),
            exact=st.booleans(),
        ),
        max_size=60,
    ),
    st.lists(st.floats(0.1, 100), min_size=60, max_size=60),
)
def test_it_never_acts_early_nor_without_a_symptom(looks: list[Look], pauses: list[float]) -> None:
    dog, now, since = Watchdog(AFTER, LEASE), 0.0, 0.0
    before: Symptom = ""
    acts: list[tuple[float, Verdict]] = []
    for look, pause in zip(looks, pauses, strict=False):
        now += pause
        seen = replace(look, now=now, turned=min(look.turned, now))
        found = symptom_of(seen)
        since = since if found and found == before else now
        before = found
        verdict = dog.judge(seen)
        assert not verdict or (found and now - since >= AFTER)
        if verdict:
            acts.append((now, verdict))
        assert verdict != "leave" or any(kind == "restart" for _, kind in acts)
    assert all(later - earlier >= AFTER for (earlier, _), (later, _) in pairwise(acts))


@given(st.lists(st.integers(0, 10_000), max_size=30), st.integers(1, 64))
def test_a_worker_with_every_slot_taken_is_left_alone(waiting: list[int], slots: int) -> None:
    dog = Watchdog(AFTER, LEASE)
    for step, count in enumerate(waiting):
        now = step * 500.0
        look = replace(STARVING, now=now, turned=now, delivered=0, in_work=slots, slots=slots, waiting=count)
        assert dog.judge(look) == ""


# ---------------------------------------------------------------------------------- the lookout


class World:
    """A consumer and a broker as a lookout sees them."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.depth: Depth | Exception = Depth(waiting=0, in_flight=0)
        self.busy = 0
        self.asked = 0
        self.said: list[str] = []
        self.left: list[int] = []
        self.pulse = Pulse(lambda: self.now)
        self.pulse.start()
        self.lookout = Lookout(
            self.pulse,
            self._depth,
            lambda: self.busy,
            2,
            Watchdog(AFTER, LEASE),
            PERIOD,
            say=self.said.append,
            complain=self.said.append,
            leave=self.left.append,
            monotonic=lambda: self.now,
        )

    def _depth(self) -> Depth:
        self.asked += 1
        if isinstance(self.depth, Exception):
            raise self.depth
        return self.depth

    def run(self, seconds: float, *, turning: bool = True, obeying: bool = True) -> None:
        """Let time pass; the loop turns, and restarts the consumer when told to."""
        for _ in range(int(seconds / PERIOD)):
            self.now += PERIOD
            if turning:
                try:
                    self.pulse.beat()
                except StalledError:
                    self.pulse.stop()
                    if obeying:
                        self.pulse.start()
            self.lookout.look()


def test_a_consumer_that_hangs_ends_the_process_with_a_stable_code() -> None:
    world = World()
    world.run(4 * AFTER + RECONNECT_SECONDS, turning=False)
    assert world.left[0] == UNAVAILABLE
    assert world.said[0] == "watchdog: the consumer is hung: restarting it"
    assert world.said[1].startswith("error CONSUMER_HUNG: ")


def test_a_dead_connection_is_made_anew_first() -> None:
    world = World()
    world.depth = Depth(waiting=2, in_flight=0)
    world.run(PERIOD + AFTER)
    assert (world.pulse.starts, world.left) == (1, [])
    world.run(PERIOD)
    assert (world.pulse.starts, world.left) == (2, [])
    world.pulse.delivery()
    world.depth = Depth(waiting=0, in_flight=0)
    world.run(10 * AFTER)
    assert (world.pulse.starts, world.left) == (2, [])


def test_a_consumer_that_never_comes_back_ends_the_process() -> None:
    world = World()
    world.depth = Depth(waiting=2, in_flight=0)
    world.run(6 * (AFTER + RECONNECT_SECONDS), obeying=False)
    assert world.left[0] == UNAVAILABLE


@pytest.mark.parametrize("error", [DeliveryError("BROKER_UNREACHABLE"), ValueError("secret")])
def test_a_broker_that_is_away_is_nobody_s_fault(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.depth = error
    world.run(20 * AFTER, turning=False)
    assert (world.left, world.said, world.pulse.starts) == ([], [], 1)
    assert not world.lookout.reachable
    assert "secret" not in caplog.text
    world.depth = Depth(waiting=0, in_flight=0)
    world.run(PERIOD)
    assert world.lookout.reachable


def test_a_busy_worker_does_not_trouble_the_broker() -> None:
    world = World()
    world.busy = 2
    world.run(10 * AFTER)
    assert world.asked == 0


def test_a_restart_that_is_needed_no_longer_is_called_off() -> None:
    world = World()
    world.run(AFTER + 2 * PERIOD, turning=False)
    assert world.said
    world.pulse.turned = world.now + PERIOD  # the loop comes back by itself, between two looks
    world.now += PERIOD
    world.lookout.look()
    world.pulse.beat()
    assert world.pulse.starts == 1


def test_a_stopping_worker_is_not_restarted() -> None:
    world = World()
    world.lookout.stop()
    world.run(10 * AFTER, turning=False)
    assert (world.said, world.left) == ([], [])
