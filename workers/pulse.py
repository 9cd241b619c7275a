"""The consumer's signs of life: is it connected, does its loop turn, when came the last message.

A Celery bootstep after the task consumer. It beats once a second from the loop itself, whichever
loop the transport has, and carries one order the other way: a watchdog, which lives in another
thread, may ask for a restart of the consumer. That is then done by the loop's own thread the way a
lost connection is: Celery closes the connection and builds the consumer anew.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Final

from celery import Celery, bootsteps
from celery.worker.consumer.tasks import Tasks

BEAT_SECONDS: Final = 1.0


class StalledError(ConnectionError):
    """Raised in the consumer's loop to restart it; Celery takes it for a lost connection."""


class Pulse:
    """Signs of life of one consumer. Safe for threads.

    :param monotonic: seconds.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._restart = threading.Event()
        self.connected = False
        """Whether the consumer consumes, as far as it knows itself."""
        self.starts = 0
        """How often it began to."""
        self.turned = self.delivered = monotonic()
        """When its loop last turned, when a message last came."""

    def start(self) -> None:
        """The consumer consumes from now on."""
        self._restart.clear()
        self.turned = self._monotonic()
        self.starts += 1
        self.connected = True

    def stop(self) -> None:
        """The consumer consumes no longer: it stops, or is built anew."""
        self.connected = False
        self._restart.clear()

    def beat(self) -> None:
        """The loop turns.

        :raises StalledError: a restart was asked for.
        """
        self.turned = self._monotonic()
        if self._restart.is_set():
            self._restart.clear()
            raise StalledError("restart")

    def delivery(self) -> None:
        """A message came."""
        self.delivered = self._monotonic()

    def ask_restart(self) -> None:
        """Let the loop restart the consumer when it turns next."""
        self._restart.set()

    def call_off(self) -> None:
        """A restart is needed no longer."""
        self._restart.clear()


class PulseStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Takes the pulse of a consumer."""

    requires = (Tasks,)
    name = "Pulse"
    pulse: Pulse

    def start(self, parent: Any) -> None:
        """The consumer was started, or started again."""
        pulse = type(self).pulse
        if parent.hub is None:
            # A loop that blocks has no timers: it looks for pending operations at each turn.
            done: Callable[[], None] = type(parent).perform_pending_operations.__get__(parent)

            def perform() -> None:
                if parent.blueprint.state == bootsteps.RUN:
                    pulse.beat()
                done()

            parent.perform_pending_operations = perform
        pulse.start()

    def register_with_event_loop(self, parent: Any, hub: Any) -> None:
        """Beat from the event loop."""
        hub.call_repeatedly(BEAT_SECONDS, type(self).pulse.beat)

    def stop(self, parent: Any) -> None:
        """The consumer stops or is built anew."""
        type(self).pulse.stop()

    def shutdown(self, parent: Any) -> None:
        """The worker ends."""
        type(self).pulse.stop()


def install_pulse(app: Celery, pulse: Pulse) -> None:
    """Take the pulse of the app's consumer."""
    app.steps["consumer"].add(type("Pulse", (PulseStep,), {"pulse": pulse}))
