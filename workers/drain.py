"""Scale to zero: stop the worker once its queue has stayed empty."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from celery.worker import state

from ..broker_config.carriers import Depth
from ..wire.errors import DeliveryError

POLL_SECONDS: Final = 0.25
#: Brokers that only estimate bill each look, and may say zero once where messages wait.
ESTIMATE_POLL_SECONDS: Final = 1.0
ESTIMATE_LOOKS: Final = 5


class Drain(threading.Thread):
    """Asks Celery for a warm shutdown when nothing was waiting or in work for a while.

    A broker that cannot say how many wait (Pub/Sub) delivers what it has at once: there the queue is
    empty when nothing came for that long, and the broker still answers.

    :param depth: how full the queue is. :param in_work: how many are in work here.
    :param idle_seconds: how long both must stay at zero.
    """

    def __init__(self, depth: Callable[[], Depth], in_work: Callable[[], int], idle_seconds: float) -> None:
        super().__init__(name="drain", daemon=True)
        self._depth = depth
        self._in_work = in_work
        self._idle_seconds = idle_seconds

    def run(self) -> None:
        """Poll until idle for long enough, then set Celery's stop flag (exit status 0)."""
        idle_since, looks, exact, taken = time.monotonic(), 0, True, self._taken()
        while time.monotonic() - idle_since < self._idle_seconds or (not exact and looks < ESTIMATE_LOOKS):
            time.sleep(POLL_SECONDS if exact else ESTIMATE_POLL_SECONDS)
            try:
                # Where nobody can say what waits, what came and went since the last look is all there is.
                before, taken = taken, self._taken()
                busy = self._in_work() > 0 or taken != before
                if not busy:
                    depth = self._depth()
                    busy, exact = bool(depth.waiting), depth.exact
            except DeliveryError:
                busy = True  # an unreachable broker is not an empty queue
            looks = 0 if busy else looks + 1
            if busy:
                idle_since = time.monotonic()
        state.should_stop = 0

    @staticmethod
    def _taken() -> int:
        """Return how many messages Celery has ever taken here."""
        return int(state.all_total_count[0])
