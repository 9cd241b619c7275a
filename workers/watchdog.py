"""A consumer that stopped consuming is noticed: it is restarted, and if that does not help, the process ends.

Consumers die silently in three ways: the loop hangs, the connection is dead though nobody closed it, or
the loop never comes back from reconnecting. What all have in common is that this worker could work,
messages wait, the broker answers others, and still nothing comes. That is what is looked for, so that it
holds for every broker. A worker whose slots are all taken is busy, however long its jobs run; a broker
that answers nobody is away, and a restart would not bring it back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

#: What is done about a consumer: nothing, build it anew, or end the process.
Verdict = Literal["", "restart", "leave"]
#: Why; the words are those of metrics.
Symptom = Literal["", "hung", "starving", "lost"]
SYMPTOMS: Final[tuple[Symptom, ...]] = ("hung", "starving", "lost")
#: Beats that a loop may miss while it waits for a slow answer of the broker.
LATE_SECONDS: Final = 5.0
#: For a restart: dead connections must time out first, and Celery's longest pause between tries is 30 s.
RECONNECT_SECONDS: Final = 75.0
#: A broker that only estimates may say for a while that messages wait where none do.
INEXACT_FACTOR: Final = 2


@dataclass(frozen=True, slots=True)
class Look:
    """What is seen of a consumer at one moment; times are monotonic seconds.

    :param connected: whether it consumes, as far as it knows. :param starts: how often it began to.
    :param turned: when its loop last turned. :param delivered: when a message last came.
    :param in_work: messages in work. :param slots: how many can be.
    :param reachable: whether the broker answers on a connection of its own.
    :param waiting: messages that nobody has taken; None where that was not asked or nobody can say.
    :param exact: whether that is a count, not an estimate.
    """

    now: float
    connected: bool
    starts: int
    turned: float
    delivered: float
    in_work: int
    slots: int
    reachable: bool
    waiting: int | None
    exact: bool = True


class Watchdog:
    """Judges one consumer, look by look.

    :param after_s: seconds for which a symptom must last before something is done, and again before more is.
    :param lease_s: seconds after which work that still runs belongs to others anyway.
    :param reconnect_s: seconds more for a consumer that is being built anew.
    """

    def __init__(self, after_s: float, lease_s: float, reconnect_s: float = RECONNECT_SECONDS) -> None:
        self._after_s, self._lease_s, self._reconnect_s = after_s, lease_s, reconnect_s
        self.symptom: Symptom = ""
        self._seen_at = self._first_at = 0.0
        self._seen_delivery = 0.0
        self._starts = self._asked_at = 0
        self._restarts = 0
        self.restarts = dict.fromkeys(SYMPTOMS, 0)
        """How often a consumer was restarted, by symptom."""

    def judge(self, look: Look) -> Verdict:
        """Take a look and return what is to be done now."""
        found = symptom_of(look)
        if not found:
            if look.delivered != self._seen_delivery or look.waiting == 0:
                self._restarts = 0  # it works again
            self.symptom = ""
            return ""
        if (found, look.delivered, look.starts) != (self.symptom, self._seen_delivery, self._starts):
            self._begin(found, look)
        if look.now - self._seen_at < self._patience(found, look):
            return ""
        return self._act(found, look)

    def _begin(self, found: Symptom, look: Look) -> None:
        if look.delivered != self._seen_delivery:
            self._restarts = 0
        self._seen_delivery = look.delivered
        self.symptom, self._starts, self._seen_at = found, look.starts, look.now
        if not self._restarts:
            self._first_at = look.now

    def _patience(self, found: Symptom, look: Look) -> float:
        restarting = self._restarts > 0 and look.starts == self._asked_at
        patience = self._after_s * (1 if look.exact else INEXACT_FACTOR)
        return patience + (self._reconnect_s if found == "lost" or restarting else 0)

    def _act(self, found: Symptom, look: Look) -> Verdict:
        self._seen_at = look.now
        if not self._restarts:
            self._restarts, self._asked_at = 1, look.starts
            self.restarts[found] += 1
            return "restart"
        # What is in work is not thrown away for this, unless others do it already.
        if look.in_work and look.now - self._first_at < self._lease_s:
            return ""
        return "leave"


def symptom_of(look: Look) -> Symptom:
    """Return what is wrong with a consumer at this moment, if it lasts."""
    if not look.reachable:
        return ""
    if not look.connected:
        return "lost"
    if look.now - look.turned > LATE_SECONDS:
        return "hung"
    idle = look.in_work < look.slots
    return "starving" if idle and look.waiting else ""
