"""Asks a KMS again where that may help, within a deadline, and leaves one alone that keeps failing.

Pauses grow and are drawn whole at random ("full jitter"), so that a fleet that starts
together does not knock together. Only errors that call themselves retriable are
asked again. Calls that ended in one count for the circuit breaker; a refusal does not,
because a KMS that says no works.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

from ...wire.errors import ConfigurationError, Error, KeyReleaseError

T = TypeVar("T")

DEFAULT_DEADLINE_S: Final = 30.0
MAX_ATTEMPTS: Final = 4
FIRST_PAUSE_S: Final = 0.2
MAX_PAUSE_S: Final = 5.0
FAILURES_TO_OPEN: Final = 3
OPEN_S: Final = 30.0


class Patience:
    """How long and how often one KMS is asked.

    :param deadline_s: for one call in all, in seconds, pauses included.
    :param attempt_s: how long one attempt may take, in seconds: none is begun that could not end in time.
    :param attempts: at most. :param open_s: how long a failing KMS is left alone, in seconds.
    :param monotonic: :param sleep: clock and pause, in seconds.
    :raises ConfigurationError: ``EXTRA_MISSING``.
    """

    def __init__(
        self,
        *,
        deadline_s: float = DEFAULT_DEADLINE_S,
        attempt_s: float = DEFAULT_DEADLINE_S / 3,
        attempts: int = MAX_ATTEMPTS,
        open_s: float = OPEN_S,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        try:
            import pybreaker
            import tenacity
        except ImportError:
            raise ConfigurationError(
                "EXTRA_MISSING",
                "key release needs tenacity and pybreaker: pip install 'ephemeralml[aws]' or [gcp]",
            ) from None
        self._deadline_s = deadline_s
        self._attempt_s = attempt_s
        self._attempts = attempts
        self._monotonic = monotonic
        self._sleep = sleep
        self._tenacity = tenacity
        self._open = pybreaker.CircuitBreakerError
        # The failure that opens it is handed on as it is, not as the breaker's.
        self._breaker = pybreaker.CircuitBreaker(
            fail_max=FAILURES_TO_OPEN,
            reset_timeout=open_s,
            exclude=[lambda error: not may_help(error)],
            throw_new_error_on_trip=False,
        )

    def __call__(self, attempt: Callable[[], T]) -> T:
        """Return what an attempt returns, the last error where none succeeds.

        :raises KeyReleaseError: ``KMS_UNAVAILABLE`` (retriable) while the breaker is open.
        :raises Error: the attempt's own.
        """
        end = self._monotonic() + self._deadline_s
        tenacity = self._tenacity
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(may_help),
            wait=tenacity.wait_random_exponential(multiplier=FIRST_PAUSE_S, max=MAX_PAUSE_S),
            stop=tenacity.stop_any(
                tenacity.stop_after_attempt(self._attempts),
                lambda state: self._monotonic() + state.upcoming_sleep + self._attempt_s > end,
            ),
            sleep=self._sleep,
            reraise=True,
        )
        try:
            answer: T = self._breaker.call(retrying, attempt)
        except self._open:
            raise KeyReleaseError(
                "KMS_UNAVAILABLE", "the KMS kept failing and is left alone for a while", retriable=True
            ) from None
        return answer


def may_help(error: BaseException) -> bool:
    """Return whether an error calls itself retriable."""
    return isinstance(error, Error) and error.retriable
