"""Asking again: pauses, deadline and breaker, without any KMS and without waiting."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from ephemeralml.attestation.key_release.retry import FIRST_PAUSE_S, MAX_PAUSE_S, Patience, may_help
from ephemeralml.wire.errors import ConfigurationError, FetchError, KeyReleaseError

BUSY = KeyReleaseError("KMS_UNAVAILABLE", retriable=True)
NO = KeyReleaseError("KMS_DENIED")


class Clock:
    """A clock that moves when somebody sleeps or works."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def patience(self, **settings: float) -> Patience:
        return Patience(
            deadline_s=settings.pop("deadline_s", 1_000),
            attempt_s=settings.pop("attempt_s", 1),
            attempts=int(settings.pop("attempts", 4)),
            open_s=settings.pop("open_s", 30),
            monotonic=lambda: self.now,
            sleep=self.sleep,
        )


def turns(*outcomes: Exception | str) -> Callable[[], str]:
    """Return an attempt that has these outcomes, one after another."""
    left: Iterable[Exception | str] = iter(outcomes)

    def attempt() -> str:
        outcome = next(iter(left))
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return attempt


def test_what_may_help_is_asked_again() -> None:
    clock = Clock()
    assert clock.patience()(turns(BUSY, FetchError("LAUNCHER_UNAVAILABLE"), "key")) == "key"
    assert len(clock.pauses) == 2


def test_a_refusal_is_final() -> None:
    clock = Clock()
    with pytest.raises(KeyReleaseError, match="KMS_DENIED"):
        clock.patience()(turns(NO, "key"))
    assert clock.pauses == []


@pytest.mark.parametrize("attempts", [1, 2, 4])
def test_the_last_error_comes_out_as_it_is(attempts: int) -> None:
    clock = Clock()
    errors = [KeyReleaseError(f"KMS_{index}", retriable=True) for index in range(9)]
    with pytest.raises(KeyReleaseError) as caught:
        clock.patience(attempts=attempts)(turns(*errors))
    assert caught.value is errors[attempts - 1]
    assert len(clock.pauses) == attempts - 1


def test_pauses_are_drawn_whole_at_random_below_a_growing_limit() -> None:
    """Full jitter: some pauses are short even late, and none is over its limit."""
    drawn: list[list[float]] = []
    for _ in range(60):
        clock = Clock()
        with pytest.raises(KeyReleaseError):
            clock.patience(attempts=8)(turns(*[BUSY] * 8))
        drawn.append(clock.pauses)
    for place in range(7):
        limit = min(FIRST_PAUSE_S * 2**place, MAX_PAUSE_S)
        at_place = [pauses[place] for pauses in drawn]
        assert max(at_place) <= limit
        assert min(at_place) < limit / 2 < max(at_place)


def test_no_attempt_is_begun_that_cannot_end_before_the_deadline() -> None:
    clock = Clock()
    begun: list[float] = []

    def attempt() -> str:
        begun.append(clock.now)
        clock.now += 3
        raise BUSY

    with pytest.raises(KeyReleaseError):
        clock.patience(deadline_s=10, attempt_s=3, attempts=99)(attempt)
    assert 2 <= len(begun) <= 3
    assert all(at + 3 <= 10 for at in begun)


def test_three_calls_in_vain_open_the_breaker_and_a_refusal_does_not() -> None:
    clock = Clock()
    patience = clock.patience()
    for _ in range(9):
        with pytest.raises(KeyReleaseError, match="KMS_DENIED"):
            patience(turns(NO))
    for _ in range(3):
        with pytest.raises(KeyReleaseError) as caught:
            patience(turns(*[BUSY] * 4))
        assert caught.value is BUSY
    with pytest.raises(KeyReleaseError, match="left alone") as opened:
        patience(turns("key"))
    assert opened.value.retriable


def test_a_breaker_that_waited_lets_one_call_through() -> None:
    patience = Clock().patience(open_s=0)
    for _ in range(3):
        with pytest.raises(KeyReleaseError):
            patience(turns(*[BUSY] * 4))
    assert patience(turns("key")) == "key"
    assert patience(turns(BUSY, "key")) == "key"


def test_errors_that_are_not_ours_are_never_repeated() -> None:
    assert not may_help(ValueError())
    assert not may_help(KeyboardInterrupt())
    with pytest.raises(ZeroDivisionError):
        Clock().patience()(turns(ZeroDivisionError(), "key"))


def test_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "tenacity", None)
    with pytest.raises(ConfigurationError, match="EXTRA_MISSING"):
        Patience()
