"""When a webhook is sent again: ten attempts over 75 hours, none of them in step with others."""

from __future__ import annotations

import email.utils
from collections.abc import Callable
from typing import Final

#: Seconds between attempts; together 75 hours and a half.
DELAYS: Final = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
MAX_ATTEMPTS: Final = len(DELAYS) + 1
#: A delay is up to so much longer, so that what failed together does not come again together.
JITTER: Final = 0.2
#: The longest time that a receiver may ask to be left alone.
MAX_RETRY_AFTER_S: Final = 86_400.0


def delay(attempts: int, random: Callable[[], float], retry_after_s: float | None = None) -> float | None:
    """Return the seconds until the next attempt, or None when there is none left.

    :param attempts: made so far, at least one. :param random: draws from 0 to 1.
    :param retry_after_s: what the receiver asked for; it lengthens the delay, never shortens it.
    """
    if attempts > len(DELAYS):
        return None
    seconds = DELAYS[attempts - 1] * (1 + JITTER * random())
    return max(seconds, min(retry_after_s or 0.0, MAX_RETRY_AFTER_S))


def retry_after(value: str | None, now: float) -> float | None:
    """Read a ``Retry-After`` header (RFC 9110, section 10.2.3): seconds from now, or None."""
    if not value or len(value) > 64 or not value.isascii():
        return None
    if value.strip().isdigit():
        return float(int(value.strip()))
    try:
        at = email.utils.parsedate_to_datetime(value).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, at - now)
