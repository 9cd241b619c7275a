"""How epochs of fleet keys are counted, and for how long a key of one is of use.

An epoch is ``period × 1024 + turn``. The period is the clock's; the turn counts
the orders of one period, so that a key can be replaced at once and epochs still
follow one another. All rules are functions of ``now``, and every worker of a pool
must have the same settings for them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..appraise import CLOCK_SKEW_S
from .birth import DEFAULT_MAX_AGE_S

TURNS: Final = 1024
"""Epochs in a period: the first is the clock's own, the others are made on order."""

MAX_EPOCH: Final = (1 << 53) - 1
"""Far beyond any clock, and still exact in every JSON reader."""


def epoch_at(now: float, epoch_seconds: int) -> int:
    """Return the epoch that the clock alone asks for.

    :param now: Unix seconds. :param epoch_seconds: length of a period.
    """
    return _period(now, epoch_seconds) * TURNS


def next_epoch(epoch: int) -> int | None:
    """Return the epoch after this one within its period; None after the last."""
    return epoch + 1 if (epoch + 1) % TURNS else None


def _period(now: float, epoch_seconds: int) -> int:
    return int(now) // epoch_seconds + 1


@dataclass(frozen=True, slots=True)
class EpochRules:
    """The times that a pool's workers agree on, all in seconds.

    :param epoch_seconds: length of a period. :param announcement_seconds: how long clients may seal to a
        key after it was announced for the last time. :param job_seconds: the longest job lifetime for which
        a key of an ended epoch is kept.
    """

    epoch_seconds: int
    announcement_seconds: int
    job_seconds: int

    def current(self, now: float, through: int) -> int:
        """Return the epoch whose key is announced.

        :param through: the last epoch that an order has ended.
        """
        return max(epoch_at(now, self.epoch_seconds), through + 1)

    def newest(self, now: float) -> int:
        """Return the newest epoch that may exist by now: other clocks run up to 300 s ahead."""
        return (_period(now + CLOCK_SKEW_S, self.epoch_seconds) + 1) * TURNS - 1

    def born_in_its_period(self, epoch: int, created_at: int) -> bool:
        """Return whether a key may have been made then for that epoch (clocks differ by up to 300 s)."""
        earliest = _period(max(created_at - CLOCK_SKEW_S, 0), self.epoch_seconds)
        return earliest <= epoch // TURNS <= _period(created_at + CLOCK_SKEW_S, self.epoch_seconds)

    def needed_until(self, epoch: int, ended_at: float | None = None) -> float:
        """Return the time after which no live job can be sealed to an epoch's key.

        :param ended_at: when its successor was born, where that is known; never later than its period.
        """
        period_end = (epoch // TURNS) * self.epoch_seconds
        ended = period_end if ended_at is None else min(ended_at, period_end)
        return ended + self.announcement_seconds + self.job_seconds + CLOCK_SKEW_S

    def never_after(self, created_at: int) -> float:
        """Return the time after which a key is of no use to anybody, whatever jobs still name it."""
        return float(created_at + DEFAULT_MAX_AGE_S)
