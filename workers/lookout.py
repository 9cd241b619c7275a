"""Looks after a running consumer: asks the broker how things are, and does what the watchdog says."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from ..broker_config.carriers import Depth
from ..wire.exit_codes import UNAVAILABLE
from .logs import event
from .pulse import Pulse
from .watchdog import LATE_SECONDS, Look, Watchdog

LOG: Final = logging.getLogger("ephemeralml.worker")
#: Between two looks, in seconds; a quarter of the watchdog's patience where that is less.
LOOK_SECONDS: Final = 15.0
#: Until the first look: readiness waits for it.
FIRST_SECONDS: Final = 0.5
#: A broker that has answered within so many looks counts as reachable.
FRESH_LOOKS: Final = 2.5


def leave(code: int) -> None:
    """End the process at once: a hung consumer cannot be asked to. Leases give its messages back."""
    os._exit(code)


@dataclass
class Lookout:
    """Watches one consumer from a thread of its own.

    :param depth: asks the broker how full the queue is, on a connection of its own.
    :param in_work: messages in work. :param slots: how many can be.
    :param watchdog: what is to be done, or None where nothing should.
    :param always: whether somebody wants the depth also while there is no suspicion.
    :param complain: prints one line when the process must end.
    """

    pulse: Pulse
    depth: Callable[[], Depth]
    in_work: Callable[[], int]
    slots: int
    watchdog: Watchdog | None
    period_s: float = LOOK_SECONDS
    always: bool = False
    say: Callable[[str], None] = lambda _: None
    complain: Callable[[str], None] = lambda _: None
    leave: Callable[[int], None] = leave
    monotonic: Callable[[], float] = time.monotonic
    last: Depth | None = None
    """What the broker said last; None when it did not answer."""
    _answered_at: float | None = None
    _ended: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Begin to look."""
        threading.Thread(target=self._watch, name="lookout", daemon=True).start()

    def stop(self) -> None:
        """Look no longer: a worker that stops is not to be restarted."""
        self._ended.set()

    @property
    def reachable(self) -> bool:
        """Whether the broker has answered lately, this thread or the consumer itself."""
        at = self._answered_at
        return at is not None and self.monotonic() - at < self.period_s * FRESH_LOOKS

    def look(self) -> None:
        """Look once, and do what has to be done."""
        depth = self._ask() if self.always or self._suspicious() else None
        if self.watchdog is None or self._ended.is_set():
            return
        pulse, now = self.pulse, self.monotonic()
        look = Look(
            now=now,
            connected=pulse.connected,
            starts=pulse.starts,
            turned=pulse.turned,
            delivered=pulse.delivered,
            in_work=self.in_work(),
            slots=self.slots,
            reachable=depth is not None,
            waiting=None if depth is None else depth.waiting,
            exact=depth is None or depth.exact,
        )
        verdict = self.watchdog.judge(look)
        if verdict == "restart":
            self.say(f"watchdog: the consumer is {self.watchdog.symptom}: restarting it")
            event(LOG, logging.WARNING, "the consumer is restarted", code=self._code(self.watchdog))
            pulse.ask_restart()
        elif verdict == "leave":
            self.complain(
                f"error {self._code(self.watchdog)}: the consumer takes no messages, and a restart did not "
                "help; the process ends, its messages come again"
            )
            self.leave(UNAVAILABLE)
        elif not self.watchdog.symptom:
            pulse.call_off()

    @staticmethod
    def _code(watchdog: Watchdog) -> str:
        return f"CONSUMER_{watchdog.symptom.upper()}"

    def _suspicious(self) -> bool:
        """Whether the broker must be asked: a worker that is being given messages need not."""
        pulse, now = self.pulse, self.monotonic()
        if not pulse.connected or now - pulse.turned > LATE_SECONDS:
            return True
        return self.in_work() < self.slots and now - pulse.delivered >= self.period_s

    def _ask(self) -> Depth | None:
        try:
            depth = self.depth()
        except Exception as error:  # a library's own; its text may hold anything
            event(LOG, logging.INFO, "the queue could not be looked at", error=type(error).__name__)
            self.last = None
            return None
        self.last, self._answered_at = depth, self.monotonic()
        return depth

    def _watch(self) -> None:
        pause = min(FIRST_SECONDS, self.period_s)
        while not self._ended.wait(pause):
            pause = self.period_s
            try:
                self.look()
            except Exception as error:  # this thread outlives any fault
                event(LOG, logging.ERROR, "a look at the consumer failed", error=type(error).__name__)
