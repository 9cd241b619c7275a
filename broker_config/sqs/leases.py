"""Leases of one queue: what is in work stays ours while this process lives, and no longer.

One thread tells SQS: acknowledgements and gifts back at once and ten in a call, extensions when
they are due. What the broker cannot be told now is told again.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Final, Protocol

from ...wire.errors import DeliveryError
from ..signs import SIGNS

LOG: Final = logging.getLogger("ephemeralml.broker")
RETRY_SECONDS: Final = 1.0
#: A message is invisible for 12 hours at most from its receipt ("Amazon SQS visibility timeout").
MAX_LEASE_SECONDS: Final = 43_200
#: Of those, left over for clocks and calls under way.
MARGIN_SECONDS: Final = 60


class Broker(Protocol):
    """The calls that leases need; see :class:`.calls.Calls`."""

    def acknowledge(self, name: str, handles: Sequence[str]) -> None:
        """Take messages off for good."""

    def lease(self, name: str, handles: Sequence[str], seconds: int) -> int:
        """Let leases end in so many seconds from now."""


@dataclass
class _Lease:
    """Monotonic seconds: ``ends`` when it is extended no more, ``due`` when to extend, ``until`` it holds."""

    handle: str
    ends: float
    due: float
    until: float


class Leases:
    """What is held of one queue.

    :param name: the queue's in SQS. :param lease_s: seconds without a sign of this process after which a
        message is another's. :param max_lease_s: seconds after which a message in work is left to others.
    :param kept: whether a held message (its tag) is still in work here; else its lease runs out.
    """

    def __init__(
        self, calls: Broker, name: str, lease_s: float, max_lease_s: float, kept: Callable[[str], bool]
    ) -> None:
        self._calls = calls
        self._name = name
        self.seconds = math.ceil(lease_s)
        self._longest = min(max_lease_s, MAX_LEASE_SECONDS - self.seconds - MARGIN_SECONDS)
        self._kept = kept
        self._held: dict[str, _Lease] = {}
        self._done: list[str] = []
        self._given: list[str] = []
        self._until: float | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="sqs-leases", daemon=True)
        self._thread.start()

    def take(self, tag: str, handle: str) -> None:
        """Hold a message that was received.

        :param handle: its receipt handle.
        """
        now = monotonic()
        lease = _Lease(handle, now + self._longest, now + self.seconds / 3, now + self.seconds)
        with self._changed:
            self._held[tag] = lease
            self._changed.notify()

    def acknowledge(self, tag: str) -> None:
        """Take a message off the queue for good; harmless for one that is not held."""
        self._leave(tag, self._done)

    def give_back(self, tag: str) -> None:
        """Let a message be delivered again at once."""
        self._leave(tag, self._given)

    def drop(self, handle: str) -> None:
        """Take a message off for good that was never held."""
        with self._changed:
            self._done.append(handle)
            self._changed.notify()

    def close(self, timeout_s: float) -> None:
        """Tell the broker what it was not told yet, within ``timeout_s`` seconds; leases then run out."""
        with self._changed:
            self._until = monotonic() + timeout_s
            self._changed.notify()
        self._thread.join(timeout_s)

    def _leave(self, tag: str, way: list[str]) -> None:
        with self._changed:
            lease = self._held.pop(tag, None)
            if lease is not None:
                way.append(lease.handle)
                self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._done and not self._given:
                    if self._until is not None:
                        return
                    self._changed.wait(self._pause())
                # Emptied in place: others hold these lists by name.
                done, given, extended = self._done[:], self._given[:], self._due()
                self._done.clear()
                self._given.clear()
            try:
                self._tell(done, given, extended)
            except Exception as error:  # this thread keeps the leases: it must outlive any fault
                LOG.warning("leases: %s; tried again", getattr(error, "code", type(error).__name__))
                self._again(done, given, error)
            if self._until is not None and monotonic() > self._until:
                return

    def _tell(self, done: list[str], given: list[str], extended: list[str]) -> None:
        """Make the calls, each whatever became of the others; each list that got through is emptied."""
        failed: Exception | None = None
        for idents, call in (
            (extended, self._extend),
            (done, partial(self._calls.acknowledge, self._name)),
            (given, partial(self._calls.lease, self._name, seconds=0)),
        ):
            try:
                if idents:
                    call(idents)
                idents.clear()
            except Exception as error:
                failed = error
        if failed is not None:
            raise failed

    def _extend(self, handles: list[str]) -> None:
        SIGNS.extended(self._calls.lease(self._name, handles, self.seconds))

    def _again(self, done: list[str], given: list[str], error: Exception) -> None:
        """Keep for later what may succeed later; extensions come by themselves."""
        if isinstance(error, DeliveryError) and not error.retriable:
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
        """Return the handles of leases to extend now; forget those that were left and ran out."""
        now = monotonic()
        extended = []
        for tag, lease in [(tag, lease) for tag, lease in self._held.items() if lease.due <= now]:
            lease.due = now + self.seconds / 3
            if not self._kept(tag):
                if lease.until < now:
                    del self._held[tag]
            elif now < lease.ends:
                lease.until = now + self.seconds
                extended.append(lease.handle)
        return extended
