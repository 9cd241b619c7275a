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
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from ...wire.errors import EngineError
from .base import EmbedRequest, EmbedResult, Engine

Answer = EmbedResult | EngineError


@dataclass(slots=True, eq=False)
class _Call:
    """One caller's requests: it waits once, for all of them. Only the engine's thread writes answers."""

    requests: Sequence[EmbedRequest]
    answers: list[Answer] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)


#: A request that waits.
_Entry = tuple[_Call, EmbedRequest]


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
        (answer,) = self._wait([request])
        if isinstance(answer, EngineError):
            raise answer
        return answer

    def run_many(self, requests: Sequence[EmbedRequest]) -> list[Answer]:
        """Answer the requests of a pack together: for each its result or its own error, in order.

        :raises EngineError: ``ENGINE_BUSY`` or ``ENGINE_CLOSED``, for all.
        """
        refusals = [self._refusal(request) for request in requests]
        good = [request for request, refusal in zip(requests, refusals, strict=True) if refusal is None]
        answers = iter(self._wait(good))
        return [next(answers) if refusal is None else refusal for refusal in refusals]

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

    def _wait(self, requests: Sequence[EmbedRequest]) -> list[Answer]:
        """Queue requests and return their answers, in order."""
        if not requests:
            return []
        call = _Call(requests)
        entries = [(call, request) for request in requests]
        with self._changed:
            if self._closed:
                raise EngineError("ENGINE_CLOSED", "the worker is stopping", retriable=True)
            if len(self._queue) + len(entries) > self._max_queued:
                raise EngineError("ENGINE_BUSY", "too many requests are waiting", retriable=True)
            self._queue.extend(entries)
            self._changed.notify_all()
        call.done.wait()
        return call.answers

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
            while self._queue and (not batch or texts + len(self._queue[0][1].texts) <= self._max_texts):
                entry = self._queue.popleft()
                texts += len(entry[1].texts)
                batch.append(entry)
            return batch

    def _crowded(self) -> bool:
        """Whether requests of two or more callers are queued."""
        return bool(self._queue) and self._queue[0][0] is not self._queue[-1][0]

    def _texts(self) -> int:
        return sum(len(request.texts) for _, request in self._queue)

    def _answer(self, batch: list[_Entry]) -> None:
        outcome = self._try([request for _, request in batch])
        if isinstance(outcome, EngineError) and len(batch) > 1:
            for entry in batch:
                self._answer([entry])
            return
        answers: Sequence[Answer] = [outcome] if isinstance(outcome, EngineError) else outcome
        for (call, _), answer in zip(batch, answers, strict=True):
            # A caller's requests are queued and taken in order, so its answers come in order.
            call.answers.append(answer)
            if len(call.answers) == len(call.requests):
                call.done.set()

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
