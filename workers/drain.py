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
        idle_since, looks, exact = time.monotonic(), 0, True
        while time.monotonic() - idle_since < self._idle_seconds or (not exact and looks < ESTIMATE_LOOKS):
            time.sleep(POLL_SECONDS if exact else ESTIMATE_POLL_SECONDS)
            try:
                busy = self._in_work() > 0
                if not busy:
                    depth = self._depth()
                    busy, exact = bool(depth.waiting), depth.exact
            except DeliveryError:
                busy = True  # an unreachable broker is not an empty queue
            looks = 0 if busy else looks + 1
            if busy:
                idle_since = time.monotonic()
        state.should_stop = 0
