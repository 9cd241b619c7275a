"""What boot spends its time on, and since when the process lives."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

STAT: Final = Path("/proc/self/stat")
_STARTTIME: Final = 22
"""proc_pid_stat(5): field 22 is the start in clock ticks since boot; the clock is CLOCK_BOOTTIME."""


def seconds_since_process_start() -> float | None:
    """Return the age of this process in seconds, to a clock tick (10 ms); None where nothing tells it."""
    try:
        # Field 2 is the name in parentheses and may hold blanks and parentheses itself.
        fields = STAT.read_text().rpartition(")")[2].split()
        started = int(fields[_STARTTIME - 3]) / os.sysconf("SC_CLK_TCK")
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started
    except (OSError, ValueError, IndexError, AttributeError):
        return None


class Stages:
    """Times of boot's stages, in seconds. Some run side by side, so they add up to more than boot took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time one stage; what is timed twice under one name adds up."""
        started = time.perf_counter()
        yield
        self.add(name, time.perf_counter() - started)

    def add(self, name: str, seconds: float) -> None:
        """Add to a stage's time."""
        with self._lock:
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def __str__(self) -> str:
        order = ("attest", "release", "fetch", "decrypt", "load", "announce")
        names = [*(name for name in order if name in self.seconds), *(self.seconds.keys() - set(order))]
        return " ".join(f"{name} {self.seconds[name]:.2f}s" for name in names)


class TimedReader:
    """A binary file whose reading counts as a stage."""

    def __init__(self, file: BinaryIO, stages: Stages, name: str) -> None:
        self._file = file
        self._stages = stages
        self._name = name

    def readinto(self, buffer: memoryview) -> int:
        """Read into a buffer and return how many bytes."""
        with self._stages.stage(self._name):
            return self._file.readinto(buffer)  # type: ignore[attr-defined, no-any-return]
