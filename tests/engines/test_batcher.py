"""Concurrent callers share a forward pass, and nothing else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from ephemeralml.wire.errors import EngineError
from ephemeralml.workers.engines import EmbedRequest, EmbedResult, Engine, MicroBatcher, load_engine
from ephemeralml.workers.engines.noop_engine import NoopEngine

from .sentences import DEMO


class Slow(NoopEngine):
    """Records its calls, holds them until ``gate`` is set, fails on the word ``poison``."""

    def __init__(self, error: Exception | None = None) -> None:
        self.calls: list[list[EmbedRequest]] = []
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.error = error or EngineError("ENGINE_FAILED", "poisoned")

    def run(self, requests: Sequence[EmbedRequest]) -> list[EmbedResult]:
        self.calls.append(list(requests))
        self.entered.set()
        assert self.gate.wait(10)
        if any("poison" in text for request in requests for text in request.texts):
            raise self.error
        return super().run(requests)


def ask(*texts: str) -> EmbedRequest:
    return EmbedRequest(texts)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@contextmanager
def queued_behind_a_pass(engine: Slow, batcher: MicroBatcher, pool: ThreadPoolExecutor) -> Iterator[None]:
    """Hold one pass open while the block queues its requests, then let all go."""
    first = pool.submit(batcher.run, ask("first"))
    assert engine.entered.wait(10)
    yield
    engine.gate.set()
    first.result(10)


def test_callers_that_queue_up_join_one_pass() -> None:
    engine = Slow()
    with MicroBatcher(engine) as batcher, ThreadPoolExecutor(9) as pool:
        with queued_behind_a_pass(engine, batcher, pool):
            futures = [pool.submit(batcher.run, ask(DEMO[i])) for i in range(8)]
            wait_until(lambda: len(batcher._queue) == 8)
        results = [future.result(10) for future in futures]
    assert [len(call) for call in engine.calls] == [1, 8]
    assert results == [NoopEngine().run([ask(DEMO[i])])[0] for i in range(8)]
    assert batcher.passes == 2


def test_a_lone_request_never_waits() -> None:
    with MicroBatcher(NoopEngine(), max_wait_s=5.0) as batcher:
        start = time.monotonic()
        batcher.run(ask("alone"))
        assert len(batcher.run_many([ask(text) for text in DEMO[:32]])) == 32
        assert time.monotonic() - start < 2.5
        assert batcher.passes == 2


def test_a_failing_request_fails_alone() -> None:
    engine = Slow()
    with MicroBatcher(engine) as batcher, ThreadPoolExecutor(4) as pool:
        with queued_behind_a_pass(engine, batcher, pool):
            bad = pool.submit(batcher.run, ask("poison"))
            good = [pool.submit(batcher.run, ask(text)) for text in DEMO[:2]]
            wait_until(lambda: len(batcher._queue) == 3)
        assert [len(future.result(10).vectors) for future in good] == [1, 1]
        with pytest.raises(EngineError, match="ENGINE_FAILED: poisoned"):
            bad.result(10)
    assert [len(call) for call in engine.calls] == [1, 3, 1, 1, 1]


def test_foreign_exceptions_become_engine_errors_without_their_text() -> None:
    engine = Slow(ValueError("the secret input"))
    engine.gate.set()
    with MicroBatcher(engine) as batcher:
        with pytest.raises(EngineError) as caught:
            batcher.run(ask("poison"))
        assert batcher.run(ask("fine")).tokens == [3]
    assert (caught.value.code, "secret" in str(caught.value)) == ("ENGINE_FAILED", False)


def test_run_many_answers_each_request_by_itself() -> None:
    engine = Slow()
    engine.gate.set()
    requests = [ask("fine"), EmbedRequest(("fine",), dimensions=0), ask("poison"), ask("\ud800"), ask("good")]
    with MicroBatcher(engine) as batcher:
        answers = batcher.run_many(requests)
        assert batcher.run_many([]) == []
    codes = [answer.code if isinstance(answer, EngineError) else "" for answer in answers]
    assert codes == ["", "ENGINE_BAD_PARAMETERS", "ENGINE_FAILED", "ENGINE_BAD_INPUT", ""]
    assert [len(call) for call in engine.calls] == [3, 1, 1, 1]


def test_the_queue_is_bounded_and_passes_are_limited() -> None:
    engine = Slow()
    with MicroBatcher(engine, max_queued=4, max_texts=3) as batcher, ThreadPoolExecutor(4) as pool:
        with queued_behind_a_pass(engine, batcher, pool):
            future = pool.submit(
                batcher.run_many, [ask("a"), ask("b", "c"), ask("d"), ask("e", "f", "g", "h")]
            )
            wait_until(lambda: len(batcher._queue) == 4)
            with pytest.raises(EngineError, match="ENGINE_BUSY") as caught:
                batcher.run(ask("too many"))
            assert caught.value.retriable
        assert len(future.result(10)) == 4
    assert [sum(len(r.texts) for r in call) for call in engine.calls] == [1, 3, 1, 4]


def test_close_answers_what_is_queued_and_refuses_the_rest() -> None:
    engine = Slow()
    batcher = MicroBatcher(engine)
    with ThreadPoolExecutor(4) as pool:
        with queued_behind_a_pass(engine, batcher, pool):
            late = pool.submit(batcher.run, ask("late"))
            wait_until(lambda: len(batcher._queue) == 1)
            closing = pool.submit(batcher.close)
            wait_until(lambda: batcher._closed)
            with pytest.raises(EngineError, match="ENGINE_CLOSED"):
                batcher.run(ask("after"))
        assert len(late.result(10).vectors) == 1
        closing.result(10)
    batcher.close()
    assert not batcher._thread.is_alive()


def test_many_threads_on_the_real_engine_get_their_own_answers(engine: Engine) -> None:
    expected = engine.run([ask(text) for text in DEMO[:64]])
    with MicroBatcher(engine) as batcher, ThreadPoolExecutor(8) as pool:
        got = list(pool.map(batcher.run, [ask(text) for text in DEMO[:64]]))
        assert batcher.passes < 64
    for want, have in zip(expected, got, strict=True):
        a, b = (memoryview(r.vectors[0]).cast("f").tolist() for r in (want, have))
        assert max(abs(x - y) for x, y in zip(a, b, strict=True)) < 1e-5


def test_noop_is_deterministic_and_of_length_one() -> None:
    noop = load_engine("noop", {})
    for dimensions in (None, 1, 13, 384):
        result = noop.run([EmbedRequest(("a", "b", "a"), dimensions=dimensions)])[0]
        vectors = [memoryview(vector).cast("f").tolist() for vector in result.vectors]
        assert vectors[0] == vectors[2]
        assert {len(vector) for vector in vectors} == {dimensions or 384}
        assert all(abs(sum(x * x for x in vector) - 1) < 1e-6 for vector in vectors)
