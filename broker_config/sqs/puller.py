"""Takes messages of one queue: a receive waits at SQS whenever there is room for one more.

A receive takes and leases in one step, and never more than fits. It outlives outages: it is made
again until it works. A receive under way cannot be taken back; what it brings after the end is given back.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

from ...wire.errors import DeliveryError
from ..signs import SIGNS
from .calls import COUNT, Calls, Lost, Missing
from .form import unpacked
from .leases import Leases

LOG: Final = logging.getLogger("ephemeralml.broker")
PAUSES: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
#: A queue can be missing for a second after it was made (Amazon SQS API Reference, CreateQueue).
MISSING_SECONDS: Final = 10.0


class Puller:
    """Receives in a thread of its own until it is stopped.

    :param name: the queue's in SQS. :param queue: by this package's name. :param wait_s: seconds that a
        receive waits. :param room: how many more messages may be held. :param leases: holds what was
        received. :param changed: notified of messages and failures; whoever makes room notifies it too.
    """

    def __init__(
        self,
        calls: Calls,
        name: str,
        queue: str,
        wait_s: int,
        room: Callable[[], int],
        leases: Leases,
        changed: threading.Condition,
    ) -> None:
        self._calls = calls
        self._name = name
        self._queue = queue
        self._wait = wait_s
        self._room = room
        self._leases = leases
        self._changed = changed
        self._arrived: deque[dict[str, Any]] = deque()
        self._stopped = False
        self._failures = 0
        self._failing_since = 0.0
        #: What the last receive failed of, None while receives work.
        self.failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="sqs-pull", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many messages were received and not yet taken."""
        return len(self._arrived)

    def has(self, tag: str) -> bool:
        """Return whether a message was received and not yet taken."""
        with self._changed:
            return any(message["properties"]["delivery_tag"] == tag for message in self._arrived)

    def take(self) -> dict[str, Any] | None:
        """Return the next message, None where there is none."""
        with self._changed:
            return self._arrived.popleft() if self._arrived else None

    def broken(self, patience_s: float) -> Exception | None:
        """Return why no message comes: soon if none ever will, else after ``patience_s`` of failures."""
        failure = self.failure
        if failure is None:
            return None
        if isinstance(failure, Missing):
            patience_s = MISSING_SECONDS
        elif isinstance(failure, DeliveryError) and not failure.retriable:
            patience_s = 0
        return failure if monotonic() - self._failing_since >= patience_s else None

    def stop(self) -> None:
        """Receive no more, and give back what nobody took."""
        with self._changed:
            self._stopped = True
            left = list(self._arrived)
            self._arrived.clear()
            self._changed.notify_all()
        for message in left:
            self._leases.give_back(message["properties"]["delivery_tag"])

    def ended(self, timeout_s: float) -> None:
        """Wait for a receive under way, which may still bring messages."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or self._room() > 0)
                if self._stopped:
                    return
                room = self._room()
            try:
                lease_s = self._leases.seconds
                self._arrive(self._calls.receive(self._name, room, wait_s=self._wait, lease_s=lease_s))
                self._worked()
            except Exception as error:  # this thread feeds the worker: it must outlive any fault
                self._failed(error)

    def _arrive(self, received: list[dict[str, Any]]) -> None:
        for item in received:
            handle = item["ReceiptHandle"]
            message = unpacked(item["Body"], item.get("Attributes", {}).get(COUNT), self._queue)
            if message is None:
                SIGNS.dropped()
                LOG.warning("a message was dropped: not of this system's form")
                self._leases.drop(handle)
                continue
            tag = message["properties"]["delivery_tag"]
            with self._changed:
                self._leases.take(tag, handle)
                if not self._stopped:
                    self._arrived.append(message)
                    self._changed.notify_all()
                    continue
            self._leases.give_back(tag)

    def _worked(self) -> None:
        if self.failure is not None:
            LOG.warning("the broker answers again")
        self.failure, self._failures = None, 0

    def _failed(self, error: Exception) -> None:
        with self._changed:
            if self._stopped:
                return
            if self.failure is None:
                self._failing_since = monotonic()
                why = "" if isinstance(error, Lost) else f" ({getattr(error, 'code', type(error).__name__)})"
                LOG.warning("the broker gives no messages%s; tried again", why)
            self.failure = error
            self._changed.notify_all()
            pause = PAUSES[min(self._failures, len(PAUSES) - 1)]
            self._failures += 1
            self._changed.wait_for(lambda: self._stopped, pause)
