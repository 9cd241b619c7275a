"""Takes messages of one subscription: a pull waits at the server whenever there is room for one more.

A pull takes and leases in one step, and never more than fits. It outlives outages: gRPC connects
again by itself, and the pull is made again until it works.
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
from .calls import Calls, Lost, Waited, pulled
from .form import unpacked
from .leases import Leases

LOG: Final = logging.getLogger("ephemeralml.broker")
#: How often a full puller looks whether there is room.
LOOK_SECONDS: Final = 0.25
#: How long a stop waits for the end of a pull that was cancelled.
STOP_SECONDS: Final = 2.0
PAUSES: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Puller:
    """Pulls in a thread of its own until it is stopped.

    :param queue: the queue by this package's name. :param room: how many more messages may be held.
    :param leases: holds what was pulled. :param changed: notified of messages and failures;
        whoever makes room notifies it too.
    """

    def __init__(
        self,
        calls: Calls,
        subscription: str,
        queue: str,
        room: Callable[[], int],
        leases: Leases,
        changed: threading.Condition,
    ) -> None:
        self._calls = calls
        self._subscription = subscription
        self._queue = queue
        self._room = room
        self._leases = leases
        self._changed = changed
        self._arrived: deque[dict[str, Any]] = deque()
        self._call: Any = None
        self._calling = threading.Lock()
        self._stopped = False
        self._failures = 0
        self._failing_since = 0.0
        #: What the last pull failed of, None while pulls work.
        self.failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="pubsub-pull", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many messages were pulled and not yet taken."""
        return len(self._arrived)

    def has(self, tag: str) -> bool:
        """Return whether a message was pulled and not yet taken."""
        with self._changed:
            return any(message["properties"]["delivery_tag"] == tag for message in self._arrived)

    def take(self) -> dict[str, Any] | None:
        """Return the next message, None where there is none."""
        with self._changed:
            return self._arrived.popleft() if self._arrived else None

    def broken(self, patience_s: float) -> Exception | None:
        """Return why no message comes: at once if none ever will, else after ``patience_s`` of failures."""
        failure = self.failure
        final = isinstance(failure, DeliveryError) and not failure.retriable
        return failure if final or monotonic() - self._failing_since > patience_s else None

    def stop(self) -> None:
        """Stop pulling and give back what nobody took."""
        with self._calling:
            self._stopped = True
        if self._call is not None:
            self._call.cancel()
        with self._changed:
            left = list(self._arrived)
            self._arrived.clear()
            self._changed.notify_all()
        self._thread.join(STOP_SECONDS)  # so that what still came is given back before the leases close
        for message in left:
            self._leases.give_back(message["properties"]["delivery_tag"])

    def _run(self) -> None:
        while True:
            try:
                with self._changed:
                    # Celery makes room without a word where a task is left unfinished: look anyway.
                    self._changed.wait_for(lambda: self._stopped or self._room() > 0, LOOK_SECONDS)
                    room = self._room()
                if self._stopped or (room > 0 and not self._begin(room)):
                    return
                if room <= 0:
                    continue
                self._receive(pulled(self._call))
                self._worked()
            except Waited:
                self._worked()
            except Exception as error:  # this thread feeds the worker: it must outlive any fault
                self._failed(error)

    def _begin(self, room: int) -> bool:
        """Begin a pull, unless this is stopped: whoever stops it can cancel what began before."""
        with self._calling:
            if not self._stopped:
                self._call = self._calls.pull(self._subscription, room)
            return not self._stopped

    def _receive(self, received: Any) -> None:
        for item in received:
            data, attributes = item.message.data, item.message.attributes
            message = unpacked(data, attributes, item.delivery_attempt, self._queue)
            if message is None:
                SIGNS.dropped()
                LOG.warning("a message was dropped: not of this system's form")
                self._leases.drop(item.ack_id)
                continue
            tag = message["properties"]["delivery_tag"]
            self._leases.take(tag, item.ack_id)
            with self._changed:
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
