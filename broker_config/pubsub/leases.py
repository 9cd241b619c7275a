"""Leases of one subscription: what is in work stays ours while this process lives, and no longer.

One thread tells Pub/Sub: acknowledgements and gifts back at once and in one call for many,
extensions when they are due. What the broker cannot be told now is told again.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Final

from ...wire.errors import DeliveryError
from ..signs import SIGNS
from .calls import MAX_LEASE_SECONDS, Calls, Lost

LOG: Final = logging.getLogger("ephemeralml.broker")
#: The first extension comes well within the shortest deadline that a subscription can have, 10 s.
FIRST_SECONDS: Final = 3.0
RETRY_SECONDS: Final = 1.0


@dataclass
class _Lease:
    """Monotonic seconds: ``ends`` when it is extended no more, ``due`` when to extend, ``until`` it holds."""

    ident: str
    ends: float
    due: float
    until: float


class Leases:
    """What is held of one subscription.

    :param lease_s: seconds without a sign of this process after which a message is another's.
    :param max_lease_s: seconds after which a message in work is left to others.
    :param kept: whether a held message (its tag) is still in work here; else its lease runs out.
    """

    def __init__(
        self, calls: Calls, subscription: str, lease_s: float, max_lease_s: float, kept: Callable[[str], bool]
    ) -> None:
        self._calls = calls
        self._subscription = subscription
        self._seconds = min(MAX_LEASE_SECONDS, math.ceil(lease_s))
        self._max_lease = max_lease_s
        self._kept = kept
        self._held: dict[str, _Lease] = {}
        self._done: list[str] = []
        self._given: list[str] = []
        self._until: float | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="pubsub-leases", daemon=True)
        self._thread.start()

    def take(self, tag: str, ident: str) -> None:
        """Hold a message that was pulled.

        :param ident: its acknowledgement id.
        """
        now = monotonic()
        with self._changed:
            first = now + min(FIRST_SECONDS, self._seconds / 3)
            self._held[tag] = _Lease(ident, now + self._max_lease, first, now + self._seconds)
            self._changed.notify()

    def acknowledge(self, tag: str) -> None:
        """Take a message off the subscription for good; harmless for one that is not held."""
        self._leave(tag, done=True)

    def give_back(self, tag: str) -> None:
        """Let a message be delivered again at once."""
        self._leave(tag, done=False)

    def drop(self, ident: str) -> None:
        """Take a message off for good that was never held."""
        with self._changed:
            self._done.append(ident)
            self._changed.notify()

    def close(self, timeout_s: float) -> None:
        """Tell the broker what it was not told yet, within ``timeout_s`` seconds; leases then run out."""
        with self._changed:
            self._until = monotonic() + timeout_s
            self._changed.notify()
        self._thread.join(timeout_s)

    def _leave(self, tag: str, *, done: bool) -> None:
        with self._changed:
            lease = self._held.pop(tag, None)
            if lease is not None:
                # Looked up under the lock: the thread swaps these lists when it takes what they hold.
                (self._done if done else self._given).append(lease.ident)
                self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._done and not self._given:
                    if self._until is not None:
                        return
                    self._changed.wait(self._pause())
                done, self._done = self._done, []
                given, self._given = self._given, []
                extended = self._due()
            try:
                self._tell(done, given, extended)
            except Exception as error:  # this thread keeps the leases: it must outlive any fault
                LOG.warning("leases: %s; tried again", getattr(error, "code", type(error).__name__))
                self._again(done, given, error)
            if self._until is not None and monotonic() > self._until:
                return

    def _tell(self, done: list[str], given: list[str], extended: list[str]) -> None:
        """Make the calls; each list that got through is emptied."""
        for idents, seconds in ((done, None), (given, 0), (extended, self._seconds)):
            if idents and seconds is None:
                self._calls.acknowledge(self._subscription, idents)
            elif idents and seconds is not None:
                self._calls.lease(self._subscription, idents, seconds)
                if seconds:
                    SIGNS.extended(len(idents))
            idents.clear()

    def _again(self, done: list[str], given: list[str], error: Exception) -> None:
        """Keep for later what may succeed later; extensions come by themselves."""
        if not isinstance(error, Lost) and not (isinstance(error, DeliveryError) and error.retriable):
            return  # refused for good: the messages come again
        with self._changed:
            self._done[:0] = done
            self._given[:0] = given
            self._changed.wait(RETRY_SECONDS)

    def _pause(self) -> float | None:
        if not self._held:
            return None
        return max(0.0, min(lease.due for lease in self._held.values()) - monotonic())

    def _due(self) -> list[str]:
        """Return the ids of leases to extend now; forget those that were left and ran out."""
        now = monotonic()
        extended = []
        for tag, lease in [(tag, lease) for tag, lease in self._held.items() if lease.due <= now]:
            lease.due = now + self._seconds / 3
            if not self._kept(tag):
                if lease.until < now:
                    del self._held[tag]
            elif now < lease.ends:
                lease.until = now + self._seconds
                extended.append(lease.ident)
        return extended
