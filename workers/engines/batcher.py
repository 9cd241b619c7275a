"""Lets concurrent callers share one forward pass.

One thread owns the engine. It takes what is queued, in order, and runs it. It
never waits when nothing else is queued; when several callers are, it waits at
most a few milliseconds for others of the same burst. A pass that fails is
tried again request by request, so that one failure is one caller's.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from ...wire.errors import EngineError
from .base import EmbedRequest, EmbedResult, Engine

Answer = EmbedResult | EngineError


@dataclass(frozen=True, slots=True)
class _Entry:
    request: EmbedRequest
    caller: object
    answer: Future[EmbedResult] = field(default_factory=Future)


class MicroBatcher:
    """The one door to an engine for all threads of a worker.

    Make it after any fork; use it as a context manager or call :meth:`close`.

    :param engine: what to run.
    :param max_wait_s: longest wait for others, in seconds; only when two or more callers are queued.
    :param max_texts: texts in one call of the engine (a larger request runs alone).
    :param max_queued: requests that may wait; more are refused with ``ENGINE_BUSY`` (retriable).
    """

    def __init__(
        self, engine: Engine, *, max_wait_s: float = 0.002, max_texts: int = 256, max_queued: int = 4096
    ) -> None:
        self.engine = engine
        self._max_wait_s, self._max_texts, self._max_queued = max_wait_s, max_texts, max_queued
        self._queue: deque[_Entry] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._passes = 0
        self._thread = threading.Thread(target=self._work, name="micro-batcher", daemon=True)
        self._thread.start()

    @property
    def passes(self) -> int:
        """Calls of the engine so far."""
        return self._passes

    def run(self, request: EmbedRequest) -> EmbedResult:
        """Answer one request, together with whatever else is queued.

        :raises EngineError: this request's own failure, ``ENGINE_BUSY`` or ``ENGINE_CLOSED``.
        """
        self.engine.check(request)
        return self._enqueue([request])[0].result()

    def run_many(self, requests: Sequence[EmbedRequest]) -> list[Answer]:
        """Answer the requests of a pack together: for each its result or its own error, in order.

        :raises EngineError: ``ENGINE_BUSY`` or ``ENGINE_CLOSED``, for all.
        """
        answers: list[Answer | None] = [self._refusal(request) for request in requests]
        good = [index for index, answer in enumerate(answers) if answer is None]
        for index, future in zip(good, self._enqueue([requests[i] for i in good]), strict=True):
            try:
                answers[index] = future.result()
            except EngineError as error:
                answers[index] = error
        return [answer for answer in answers if answer is not None]

    def close(self) -> None:
        """Take nothing more, answer what is queued, end the thread; harmless when called again."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _refusal(self, request: EmbedRequest) -> EngineError | None:
        try:
            self.engine.check(request)
        except EngineError as error:
            return error
        return None

    def _enqueue(self, requests: Sequence[EmbedRequest]) -> list[Future[EmbedResult]]:
        caller = object()
        entries = [_Entry(request, caller) for request in requests]
        with self._changed:
            if self._closed:
                raise EngineError("ENGINE_CLOSED", "the worker is stopping", retriable=True)
            if len(self._queue) + len(entries) > self._max_queued:
                raise EngineError("ENGINE_BUSY", "too many requests are waiting", retriable=True)
            self._queue.extend(entries)
            self._changed.notify_all()
        return [entry.answer for entry in entries]

    def _work(self) -> None:
        while batch := self._take():
            self._answer(batch)

    def _take(self) -> list[_Entry]:
        """Wait for work and return a batch; an empty one means closed and drained."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed)
            deadline = time.monotonic() + self._max_wait_s
            while self._crowded() and not self._closed and self._texts() < self._max_texts:
                left = deadline - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    break
            batch: list[_Entry] = []
            texts = 0
            while self._queue and (not batch or texts + len(self._queue[0].request.texts) <= self._max_texts):
                entry = self._queue.popleft()
                texts += len(entry.request.texts)
                batch.append(entry)
            return batch

    def _crowded(self) -> bool:
        """Whether requests of two or more callers are queued."""
        return bool(self._queue) and self._queue[0].caller is not self._queue[-1].caller

    def _texts(self) -> int:
        return sum(len(entry.request.texts) for entry in self._queue)

    def _answer(self, batch: list[_Entry]) -> None:
        outcome = self._try([entry.request for entry in batch])
        if isinstance(outcome, list):
            for entry, result in zip(batch, outcome, strict=True):
                entry.answer.set_result(result)
        elif len(batch) == 1:
            batch[0].answer.set_exception(outcome)
        else:
            for entry in batch:
                self._answer([entry])

    def _try(self, requests: list[EmbedRequest]) -> list[EmbedResult] | EngineError:
        self._passes += 1
        try:
            results = self.engine.run(requests)
        except EngineError as error:
            return error
        except Exception:  # a plug-in's slip must fail its job, not hang every caller
            return EngineError("ENGINE_FAILED", "the engine failed")
        if len(results) != len(requests):
            return EngineError("ENGINE_FAILED", "the engine gave a wrong number of results")
        return results
