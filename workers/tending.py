"""Looks after a running worker's keys and its announcement."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ..wire.errors import Error
from .key_ring import KeyRing


class Tended(Protocol):
    """What a worker does again while it runs."""

    ring: KeyRing

    def tend_keys(self) -> None:
        """Obey new orders and follow the epochs."""

    def renew(self) -> object:
        """Announce again."""


@dataclass
class Tending:
    """Tends until the worker stops.

    :param announced: is called when there is a new announcement.
    :param period_s: between two announcements. :param poll_s: between two looks for orders and epochs.
    :param say: prints a line for the operator.
    """

    worker: Tended
    announced: Callable[[], object]
    period_s: float
    poll_s: float
    say: Callable[[str], None]
    _said: str = ""

    def run(self, stopping: threading.Event) -> None:
        """Look after the keys, and announce again in time or when the key has changed.

        A failure is tried again; the announcement that stands expires meanwhile.
        """
        due = time.monotonic() + self.period_s
        while True:
            self.tried(self.worker.tend_keys)
            moved = self.worker.ring.moved.is_set()
            if (moved or time.monotonic() >= due) and self.tried(self.worker.renew):
                self.announced()
                due = time.monotonic() + self.period_s
            if stopping.wait(self.poll_s):
                return

    def tried(self, step: Callable[[], object]) -> bool:
        """Run a step and return whether it went well; a new reason why not is said once."""
        try:
            step()
        except Error as error:
            if error.code != self._said:
                self.say(f"keys: {error}; tried again")
            self._said = error.code
            return False
        except Exception as error:  # this thread obeys revocations: it must outlive any fault
            name = type(error).__name__
            if name != self._said:
                self.say(f"keys: an unexpected {name}; tried again")
            self._said = name
            return False
        self._said = ""
        return True
