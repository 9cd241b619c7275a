"""What transports tell of themselves, as numbers: whoever watches a worker reads them here.

Transports are made by kombu, several per process, so the counts are the process's.
"""

from __future__ import annotations

import threading


class Signs:
    """Counts since the process began. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.leases_extended = 0
        self.messages_dropped = 0

    def extended(self, leases: int) -> None:
        """So many leases were extended."""
        with self._lock:
            self.leases_extended += leases

    def dropped(self) -> None:
        """A message was dropped that is not of this system's form."""
        with self._lock:
            self.messages_dropped += 1


SIGNS = Signs()
