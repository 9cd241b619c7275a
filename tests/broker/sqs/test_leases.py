"""Leases against calls that fail: nothing is told twice as often as needed, nothing is forgotten."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from ephemeralml.broker_config.sqs.calls import MAX_BATCH, Calls, Lost
from ephemeralml.broker_config.sqs.leases import MAX_LEASE_SECONDS, Leases
from ephemeralml.wire.errors import DeliveryError


class Told:
    """Writes down what it is told, after so many failures."""

    def __init__(self, *failures: Exception) -> None:
        self._failures = list(failures)
        self.acknowledged: list[str] = []
        self.leased: list[tuple[str, int]] = []

    def acknowledge(self, name: str, handles: Sequence[str]) -> None:
        """Take messages off."""
        self._fail()
        self.acknowledged += handles

    def lease(self, name: str, handles: Sequence[str], seconds: int) -> int:
        """Extend or give back."""
        self._fail()
        self.leased += [(handle, seconds) for handle in handles]
        return len(handles)

    def _fail(self) -> None:
        if self._failures:
            raise self._failures.pop(0)


@contextmanager
def leases(
    told: Told, lease_s: float = 60, max_lease_s: float = 3600, kept: Callable[[str], bool] = lambda _: True
) -> Iterator[Leases]:
    """Yield leases that are closed afterwards."""
    made = Leases(told, "q", lease_s, max_lease_s, kept)
    try:
        yield made
    finally:
        made.close(10)


def until(true: Callable[[], bool]) -> None:
    """Return once ``true`` says so."""
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_is_closed_has_told_everything() -> None:
    told = Told()
    with leases(told) as held:
        for number in range(30):
            held.take(str(number), f"h{number}")
            (held.acknowledge if number % 2 else held.give_back)(str(number))
        held.drop("foreign")
    assert set(told.acknowledged) == {f"h{number}" for number in range(1, 30, 2)} | {"foreign"}
    assert set(told.leased) == {(f"h{number}", 0) for number in range(0, 30, 2)}


@pytest.mark.parametrize("error", [Lost(), DeliveryError("BROKER_DENIED", "x"), KeyError("a fault")])
def test_what_could_not_be_told_is_told_again(error: Exception) -> None:
    told = Told(error)
    with leases(told) as held:
        held.take("a", "h")
        held.acknowledge("a")
        until(lambda: told.acknowledged == ["h"])


def test_one_call_that_fails_holds_up_no_other() -> None:
    told = Told(DeliveryError("BROKER_REFUSED", "x", retriable=False))
    with leases(told) as held:
        held.take("a", "ha")
        held.take("b", "hb")
        held._done.append("ha")  # both at once, the first is refused for good
        held.give_back("b")
        until(lambda: told.leased == [("hb", 0)])
    assert told.acknowledged == []


def test_acknowledgements_from_many_threads_are_all_told() -> None:
    told = Told()
    with leases(told) as held:

        def work(first: int) -> None:
            for number in range(first, first + 200):
                held.take(str(number), f"h{number}")
                held.acknowledge(str(number))

        threads = [threading.Thread(target=work, args=(start,)) for start in range(0, 1600, 200)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(told.acknowledged) == sorted(f"h{number}" for number in range(1600))


def test_what_is_in_work_is_extended_and_what_was_left_is_not() -> None:
    told = Told()
    with leases(told, 1, kept=lambda tag: tag == "worked") as held:
        held.take("worked", "hw")
        held.take("left", "hl")
        until(lambda: len(told.leased) >= 4)
        assert set(told.leased) == {("hw", 1)}
        until(lambda: "left" not in held._held)
        held.give_back("left")
    assert ("hl", 0) not in told.leased


def test_the_longest_lease_ends_extensions() -> None:
    told = Told()
    with leases(told, 1, max_lease_s=0.0) as held:
        held.take("a", "h")
        time.sleep(0.8)  # two extensions would have been due
        assert told.leased == []


def test_no_lease_is_extended_beyond_twelve_hours() -> None:
    with leases(Told(), 600, max_lease_s=MAX_LEASE_SECONDS) as held:
        assert held._longest + held.seconds < MAX_LEASE_SECONDS


class Client:
    """Answers batches like boto3's client."""

    def __init__(self, failed: list[dict[str, object]]) -> None:
        self._failed = failed
        self.sizes: list[int] = []

    def get_queue_url(self, **_: object) -> dict[str, str]:
        """Return a URL."""
        return {"QueueUrl": "u"}

    def delete_message_batch(self, *, Entries: list[object], **_: object) -> dict[str, object]:
        """Delete all but what failed."""
        self.sizes.append(len(Entries))
        return {"Successful": Entries[len(self._failed) :], "Failed": self._failed}


def test_batches_hold_what_sqs_takes() -> None:
    client = Client([])
    Calls(client, client).acknowledge("q", [str(number) for number in range(25)])
    assert client.sizes == [MAX_BATCH, MAX_BATCH, 5]


def test_a_lease_that_ran_out_is_no_failure_and_a_failure_of_sqs_is_one() -> None:
    Calls(gone := Client([{"Id": "0", "SenderFault": True}]), gone).acknowledge("q", ["h"])
    broken = Client([{"Id": "0", "SenderFault": False}])
    with pytest.raises(Lost):
        Calls(broken, broken).acknowledge("q", ["h"])
