"""Fetches a package by ranges, several at once, and hands the bytes out in order.

Memory is ``window`` ranges, whatever the package's size. A range that breaks goes on at the
byte where it broke; the object's version is pinned from the first look to the last byte.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from types import TracebackType
from typing import Final

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from ...wire.errors import DeliveryError, Error
from .stores.base import MAX_OBJECT_BYTES, ModelStore, ObjectVersion, bad_answer, unavailable

_NO_PROGRESS: Final[Callable[[int, int], None]] = lambda _done, _size: None  # noqa: E731


@dataclass(frozen=True, slots=True)
class FetchRules:
    """How a package is fetched.

    :param range_bytes: bytes of one request. :param window: requests under way at once.
    :param attempts: tries of one range. :param deadline_s: for the whole package,
        in seconds. :param wait_s: longest pause between tries, in seconds.
    """

    range_bytes: int = 8 << 20
    window: int = 4
    attempts: int = 5
    deadline_s: float = 1800.0
    wait_s: float = 5.0


class RangedReader:
    """A package in a store as a binary stream; used as a context manager.

    :param progress: called with bytes handed out and the size, in bytes.
    """

    def __init__(
        self,
        store: ModelStore,
        rules: FetchRules | None = None,
        *,
        progress: Callable[[int, int], None] = _NO_PROGRESS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._rules = rules or FetchRules()
        self._progress = progress
        self._clock = clock
        self._ends = clock() + self._rules.deadline_s
        self._stopped = threading.Event()
        self._under_way: deque[Future[bytearray]] = deque()
        self._head = memoryview(b"")
        self._done = self._asked = 0
        self._version: ObjectVersion | None = None

    def __enter__(self) -> RangedReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give up what is under way."""
        self._stopped.set()
        self._under_way.clear()
        self._head = memoryview(b"")

    def readinto(self, buffer: memoryview) -> int:
        """Read into a buffer and return how many bytes; 0 at the end.

        :raises DeliveryError: ``MODEL_STORE_DEADLINE``, ``MODEL_STORE_UNAVAILABLE`` or
            ``MODEL_STORE_BAD_ANSWER``. :raises ModelError: ``MODEL_SWAPPED``.
        :raises ConfigurationError: ``MODEL_NOT_FOUND`` or ``MODEL_STORE_DENIED``.
        """
        if not self._head:
            self._head = self._next()
        count = min(len(buffer), len(self._head))
        buffer[:count] = self._head[:count]
        self._head = self._head[count:]
        self._done += count
        if self._version is not None and count:
            self._progress(self._done, self._version.size)
        return count

    def _next(self) -> memoryview:
        if self._version is None:
            self._version = self._first_look()
        while len(self._under_way) < self._rules.window and self._asked < self._version.size:
            stop = min(self._asked + self._rules.range_bytes, self._version.size)
            self._under_way.append(self._begin(self._version, self._asked, stop))
            self._asked = stop
        if not self._under_way:
            return memoryview(b"")
        try:
            return memoryview(self._under_way.popleft().result(max(0.0, self._left())))
        except FutureTimeout:
            self._stopped.set()
            raise _too_slow() from None

    def _first_look(self) -> ObjectVersion:
        version: ObjectVersion = self._retrying()(self._store.stat)
        if not 0 <= version.size <= MAX_OBJECT_BYTES:
            raise bad_answer("names a size that no package has")
        return version

    def _begin(self, version: ObjectVersion, start: int, stop: int) -> Future[bytearray]:
        future: Future[bytearray] = Future()

        def work() -> None:
            try:
                future.set_result(self._range(version, start, stop))
            except BaseException as error:
                future.set_exception(error)

        # Daemons: a store that holds a connection open must not hold the process too.
        threading.Thread(target=work, name="model-range", daemon=True).start()
        return future

    def _range(self, version: ObjectVersion, start: int, stop: int) -> bytearray:
        """Return one range; each break costs a try, and what came before it is kept."""
        buffer, done = bytearray(stop - start), 0

        def attempt() -> None:
            nonlocal done
            for piece in self._store.read_range(version, start + done, stop):
                if self._stopped.is_set() or self._left() <= 0:
                    raise _too_slow()
                if len(piece) > len(buffer) - done:
                    raise bad_answer("sent more than was asked for")
                buffer[done : done + len(piece)] = piece
                done += len(piece)
            if done < len(buffer):
                raise unavailable()

        self._retrying()(attempt)
        return buffer

    def _retrying(self) -> Retrying:
        return Retrying(
            stop=stop_after_attempt(self._rules.attempts),
            wait=wait_random_exponential(multiplier=0.1, max=self._rules.wait_s),
            retry=retry_if_exception(self._worth_another),
            sleep=self._pause,
            reraise=True,
        )

    def _worth_another(self, error: BaseException) -> bool:
        return (
            isinstance(error, Error) and error.retriable and not self._stopped.is_set() and self._left() > 0
        )

    def _pause(self, seconds: float) -> None:
        self._stopped.wait(min(seconds, max(0.0, self._left())))

    def _left(self) -> float:
        return self._ends - self._clock()


def _too_slow() -> DeliveryError:
    return DeliveryError("MODEL_STORE_DEADLINE", "the package did not arrive in time", retriable=False)
