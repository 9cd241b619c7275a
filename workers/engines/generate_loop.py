"""Makes an engine of a library: one thread steps whatever is in work, and requests join while it runs.

What texts need is done here, once for all libraries: deadlines, cancellation, stop texts, end
tokens, usage, log-probabilities. A sequence that fails, fails alone; a step that fails ends what
was in it.
"""

from __future__ import annotations

import itertools
import math
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from types import TracebackType
from typing import Final, Self

from ...wire.errors import EngineError
from ...wire.job import Completion, TokenLogprob
from .generate import GenerateRequest, OnText, Step, Stepper, Token
from .generate_text import StopTexts

MAX_QUEUED: Final = 65_536
#: Texts that wait are looked through for deadlines no more often than this, in seconds.
LOOK_SECONDS: Final = 0.05


class RunningText:
    """One text in work; see :class:`.generate.Generation`."""

    def __init__(
        self, request: GenerateRequest, prompt: list[int], max_new: int, on_text: OnText | None
    ) -> None:
        self.request, self.prompt, self.max_new = request, prompt, max_new
        self.cancelled = False
        self._pieces: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._on_text = self._pieces.put if on_text is None else on_text
        self._future: Future[Completion] = Future()

    def __iter__(self) -> Iterator[str]:
        """See :class:`.generate.Generation`."""
        while (piece := self._pieces.get()) is not None:
            yield piece
        self._future.result()

    def result(self, timeout_s: float | None = None) -> Completion:
        """See :class:`.generate.Generation`."""
        try:
            return self._future.result(timeout_s)
        except FutureTimeoutError:
            raise EngineError("ENGINE_TIMEOUT", "the text is not made yet", retriable=True) from None

    def cancel(self) -> None:
        """See :class:`.generate.Generation`."""
        self.cancelled = True

    def give(self, piece: str) -> None:
        """Hand out a piece; a taker's slip is not the text's."""
        if piece:
            try:
                self._on_text(piece)
            except Exception:
                self._on_text = _nowhere

    def end(self, end: Completion | EngineError) -> None:
        """Set the result; the first one counts."""
        if self._future.done():
            return
        if isinstance(end, EngineError):
            self._future.set_exception(end)
        else:
            self._future.set_result(end)
        self._pieces.put(None)


class _Sequence:
    """A text in the stepper: what came of it so far."""

    def __init__(self, text: RunningText, stepper: Stepper) -> None:
        self.text = text
        self._reader = stepper.reader
        self._decoder = stepper.reader.decoder()
        self._stops = StopTexts(text.request.parameters.stop)
        self._given: list[str] = []
        self._tokens: list[Token] = []

    def take(self, tokens: tuple[Token, ...]) -> str | None:
        """Take the tokens of a step; return why the text is at its end, if it is."""
        for token in tokens:
            self._tokens.append(token)
            if token.id in self._reader.ends:
                return "stop"
            self._give(self._stops.push(self._decoder.push(token.id)))
            if self._stops.stopped:
                return "stop"
            if len(self._tokens) >= self.text.max_new:
                return "length"
        return None

    def finish(self, reason: str) -> None:
        if not self._stops.stopped:
            self._give(self._stops.push(self._decoder.flush()))
            reason = "stop" if self._stops.stopped else reason
            self._give(self._stops.flush())
        request = self.text.request
        self.text.end(
            Completion(
                "".join(self._given),
                reason,
                len(self.text.prompt),
                len(self._tokens),
                request.seed,
                tuple(map(self._logprob, self._tokens)) if request.parameters.logprobs else None,
            )
        )

    def _give(self, piece: str) -> None:
        if piece:
            self._given.append(piece)
            self.text.give(piece)

    def _logprob(self, token: Token) -> TokenLogprob:
        read = self._reader.token_bytes
        top = tuple((read(other), logprob) for other, logprob in token.top)
        return TokenLogprob(read(token.id), -0.0 if token.logprob is None else token.logprob, top)


class GenerateLoop:
    """A :class:`.generate.GenerateEngine` over a :class:`.generate.Stepper`.

    Make it after any fork; use it as a context manager or call :meth:`close`.

    :param monotonic: a clock in seconds, that requests' deadlines are of.
    :param max_queued: requests that may be in work or wait; more are refused with ``ENGINE_BUSY``.
    """

    tasks = frozenset({"generate"})

    def __init__(
        self,
        stepper: Stepper,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        max_queued: int = MAX_QUEUED,
    ) -> None:
        self._stepper, self._monotonic, self._max_queued = stepper, monotonic, max_queued
        self.name, self.backend = stepper.name, stepper.backend
        self.precision, self.version = stepper.precision, stepper.version
        self.max_tokens, self.notice = stepper.max_tokens, stepper.notice
        self._waiting: OrderedDict[int, RunningText] = OrderedDict()
        self._running: dict[int, _Sequence] = {}
        self._keys = itertools.count()
        self._changed = threading.Condition()
        self._closed = False
        self._reading = 0
        self._looked = -math.inf
        self._steps = 0
        self._most = 0
        self._thread = threading.Thread(target=self._work, name="generate-loop", daemon=True)
        self._thread.start()

    @property
    def steps(self) -> int:
        """Steps of the library so far."""
        return self._steps

    @property
    def most_running(self) -> int:
        """Most sequences that were in one step."""
        return self._most

    def check(self, request: GenerateRequest) -> None:
        """See :meth:`.generate.GenerateEngine.check`."""
        self._prompt(request)

    def submit(self, request: GenerateRequest, on_text: OnText | None = None) -> RunningText:
        """See :meth:`.generate.GenerateEngine.submit`."""
        prompt = self._prompt(request)
        max_new = min(request.parameters.max_tokens, self.max_tokens - len(prompt))
        text = RunningText(request, prompt, max_new, on_text)
        with self._changed:
            if self._closed:
                raise _closed()
            if len(self._waiting) + len(self._running) >= self._max_queued:
                raise EngineError("ENGINE_BUSY", "too many requests are waiting", retriable=True)
            self._waiting[next(self._keys)] = text
            self._changed.notify_all()
        return text

    def close(self) -> None:
        """See :meth:`.generate.GenerateEngine.close`."""
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

    def _prompt(self, request: GenerateRequest) -> list[int]:
        with self._changed:
            if self._closed:
                raise _closed()
            self._reading += 1  # a tokenizer may be freed with its model: closing waits for this
        try:
            prompt = self._stepper.reader.encode(request.prompt)
        finally:
            with self._changed:
                self._reading -= 1
                self._changed.notify_all()
        if not prompt:
            raise EngineError("ENGINE_BAD_INPUT", "a prompt has no tokens")
        if len(prompt) >= self.max_tokens:
            raise EngineError(
                "ENGINE_INPUT_TOO_LONG", f"a prompt is longer than {self.max_tokens - 1} tokens"
            )
        return prompt

    # ------------------------------------------------------- the loop's own thread

    def _work(self) -> None:
        while self._wait():
            self._drop_ended()
            self._admit()
            if self._running:
                self._step()
        for text in [*self._waiting.values(), *(sequence.text for sequence in self._running.values())]:
            text.end(_closed())
        self._waiting.clear()
        self._running.clear()
        with self._changed:
            self._changed.wait_for(lambda: not self._reading)
        self._stepper.close()

    def _wait(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._running or self._closed)
            return not self._closed

    def _drop_ended(self) -> None:
        """End what was cancelled or is past its deadline, begun or not."""
        now = self._monotonic()
        for key, sequence in list(self._running.items()):
            if sequence.text.cancelled:
                self._fail(key, _cancelled())
            elif now >= sequence.text.request.deadline:
                self._finish(key, "deadline")
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        with self._changed:
            late = [k for k, t in self._waiting.items() if t.cancelled or now >= t.request.deadline]
            texts = [self._waiting.pop(key) for key in late]
        for text in texts:
            self._ended(text)

    def _ended(self, text: RunningText) -> bool:
        """End a text that need not begin, and return whether it was one."""
        if text.cancelled:
            text.end(_cancelled())
        elif self._monotonic() >= text.request.deadline:
            _Sequence(text, self._stepper).finish("deadline")
        else:
            return False
        return True

    def _admit(self) -> None:
        while len(self._running) < self._stepper.max_sequences:
            with self._changed:
                if not self._waiting:
                    return
                key, text = self._waiting.popitem(last=False)
            if self._ended(text):
                continue
            try:
                self._stepper.add(key, text.prompt, text.request, text.max_new)
            except EngineError as error:
                text.end(error)
            except Exception:  # anything may come out of a library, and its text may quote the input
                text.end(EngineError("ENGINE_FAILED", "the engine could not begin a text"))
            else:
                self._running[key] = _Sequence(text, self._stepper)
                self._most = max(self._most, len(self._running))

    def _step(self) -> None:
        self._steps += 1
        try:
            steps = self._stepper.step()
        except EngineError as error:
            self._fail_all(error)
            return
        except Exception:
            self._fail_all(EngineError("ENGINE_FAILED", "the engine failed"))
            return
        for step in steps:
            self._take(step)

    def _take(self, step: Step) -> None:
        sequence = self._running.get(step.key)
        if sequence is None:
            return
        if step.failed:
            self._fail(step.key, EngineError("ENGINE_FAILED", "the engine failed"))
            return
        try:
            reason = sequence.take(step.tokens)
        except Exception:
            self._fail(step.key, EngineError("ENGINE_FAILED", "the engine gave no text"))
            return
        if reason is not None or step.ended:
            self._finish(step.key, reason or "length")

    def _finish(self, key: int, reason: str) -> None:
        sequence = self._running.pop(key)
        self._drop(key)
        try:
            sequence.finish(reason)
        except Exception:
            sequence.text.end(EngineError("ENGINE_FAILED", "the engine gave no text"))

    def _fail(self, key: int, error: EngineError) -> None:
        sequence = self._running.pop(key)
        self._drop(key)
        sequence.text.end(error)

    def _fail_all(self, error: EngineError) -> None:
        for key in list(self._running):
            self._fail(key, error)

    def _drop(self, key: int) -> None:
        try:
            self._stepper.drop(key)
        except Exception:
            return  # whatever is wrong with it, the next step says so


def _nowhere(_: str) -> None:
    return None


def _closed() -> EngineError:
    return EngineError("ENGINE_CLOSED", "the worker is stopping", retriable=True)


def _cancelled() -> EngineError:
    return EngineError("ENGINE_CANCELLED", "the text was cancelled")
