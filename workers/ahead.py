"""Work that is begun before its result is needed: boot waits on disks, networks and compilers, at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """Runs a function in a thread of its own, from now on.

    The thread does not keep the process alive; whoever leaves early waits for it with :meth:`settle`.
    """

    def __init__(self, function: Callable[[], T], name: str) -> None:
        self._function = function
        self._value: list[T] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def result(self) -> T:
        """Wait, then return what the function returned or raise what it raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._value[0]

    def settle(self, seconds: float) -> None:
        """Wait for the end, whatever it is, for so long at most."""
        self._thread.join(seconds)

    def _run(self) -> None:
        try:
            self._value.append(self._function())
        except BaseException as error:
            self._error = error
