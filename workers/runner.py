"""Turns opened jobs into engine requests and engine results into outputs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

from ..wire.errors import EngineError, MalformedError
from ..wire.generation import GenerateParameters
from ..wire.job import Embedding, EngineInfo, Job, Output, Task, Turn
from .engines import (
    EmbedRequest,
    EmbedResult,
    Engine,
    GenerateEngine,
    GenerateRequest,
    Generation,
    MicroBatcher,
)
from .engines.generate import seeds_of

#: Takes the next piece of a text and the place of the input that it answers; must not block.
Sink = Callable[[int, str], None]
Answer = tuple[Output, ...] | EngineError

#: Before a job's deadline, for its receipt and its way back.
DEADLINE_MARGIN_SECONDS: Final = 1.0
EMBED_PARAMETERS: Final = frozenset({"normalize", "dimensions", "prompt"})


@dataclass(frozen=True)
class EmbedRunner:
    """Runs ``embed`` jobs through one micro-batcher, which all threads of the worker share."""

    batcher: MicroBatcher

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks that this runner can do."""
        return ("embed",)

    @property
    def engine_info(self) -> EngineInfo:
        """What is stated in each canonical response."""
        engine = self.batcher.engine
        return EngineInfo(engine.name, engine.backend, engine.precision, engine.version)

    @property
    def passes(self) -> int:
        """Calls of the engine so far."""
        return self.batcher.passes

    def close(self) -> None:
        """Answer what is queued, then end; harmless when called again."""
        self.batcher.close()

    def __call__(self, jobs: Sequence[Job]) -> list[tuple[Output, ...] | EngineError]:
        """Return, for each job in order, its outputs or what went wrong with it."""
        requests = [_request(job) for job in jobs]
        good = [request for request in requests if isinstance(request, EmbedRequest)]
        try:
            results = iter(self.batcher.run_many(good))
        except EngineError as error:
            return [error] * len(jobs)
        return [
            _outputs(next(results)) if isinstance(request, EmbedRequest) else request for request in requests
        ]


@dataclass(frozen=True)
class GenerateRunner:
    """Runs ``generate`` jobs of all threads of the worker on one engine, in one running batch.

    :param unix: wall clock, Unix seconds, of jobs' deadlines. :param monotonic: the engine's clock.
    """

    engine: GenerateEngine
    unix: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks that this runner can do."""
        return ("generate",)

    @property
    def engine_info(self) -> EngineInfo:
        """What is stated in each canonical response."""
        engine = self.engine
        return EngineInfo(engine.name, engine.backend, engine.precision, engine.version)

    @property
    def passes(self) -> int:
        """Steps of the engine so far, where it counts them."""
        return int(getattr(self.engine, "steps", 0))

    def close(self) -> None:
        """End what is in work; harmless when called again."""
        self.engine.close()

    def __call__(self, jobs: Sequence[Job]) -> list[Answer]:
        """Return, for each job in order, its outputs or what went wrong with it."""
        return self.stream(jobs, [None] * len(jobs))

    def stream(self, jobs: Sequence[Job], sinks: Sequence[Sink | None]) -> list[Answer]:
        """As calling it; texts go to the jobs' sinks, where there are any, while they are made."""
        # All are in the batch before the first is waited for.
        begun = [self._begin(job, sink) for job, sink in zip(jobs, sinks, strict=True)]
        return [texts if isinstance(texts, EngineError) else _completions(texts) for texts in begun]

    def _begin(self, job: Job, sink: Sink | None) -> list[Generation] | EngineError:
        try:
            parameters = GenerateParameters.read(job.parameters, len(job.inputs))
        except MalformedError as error:
            return EngineError("ENGINE_BAD_PARAMETERS", error.message)
        left = job.not_after - self.unix() - DEADLINE_MARGIN_SECONDS
        deadline = self.monotonic() + max(left, 0.0)
        begun: list[Generation] = []
        seeds = seeds_of(parameters, job.salt, len(job.inputs))
        try:
            for place, (item, seed) in enumerate(zip(job.inputs, seeds, strict=True)):
                prompt = (Turn("user", item),) if isinstance(item, str) and parameters.chat_template else item
                request = GenerateRequest(prompt, parameters, seed, deadline)
                begun.append(self.engine.submit(request, None if sink is None else partial(sink, place)))
        except EngineError as error:
            for text in begun:
                text.cancel()
            return error
        return begun


class WorkersRunner(Protocol):
    """What a worker runs jobs with."""

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks that this runner can do."""
        ...

    @property
    def engine_info(self) -> EngineInfo:
        """What is stated in each canonical response."""
        ...

    @property
    def passes(self) -> int:
        """Calls of the engine so far."""
        ...

    def __call__(self, jobs: Sequence[Job]) -> list[Answer]:
        """Return, for each job in order, its outputs or what went wrong with it."""
        ...

    def close(self) -> None:
        """End; harmless when called again."""
        ...


def make_runner(engine: Engine | GenerateEngine) -> WorkersRunner:
    """Return the runner that fits an engine."""
    if isinstance(engine, GenerateEngine):
        return GenerateRunner(engine)
    return EmbedRunner(MicroBatcher(engine))


def _completions(texts: Sequence[Generation]) -> Answer:
    """Wait for a job's texts; one that fails fails the job, and the others need not be made."""
    outputs: list[Output] = []
    for text in texts:
        try:
            outputs.append(text.result())
        except EngineError as error:
            for other in texts:
                other.cancel()
            return error
    return tuple(outputs)


def _request(job: Job) -> EmbedRequest | EngineError:
    texts = tuple(item for item in job.inputs if isinstance(item, str))
    if len(texts) != len(job.inputs):
        return EngineError("ENGINE_BAD_INPUT", "embed takes texts, not conversations")
    if not job.parameters.keys() <= EMBED_PARAMETERS:
        return EngineError("ENGINE_BAD_PARAMETERS", "an unknown parameter for embed")
    parameters = job.parameters
    values: dict[str, Any] = {name: parameters[name] for name in EMBED_PARAMETERS if name in parameters}
    return EmbedRequest(texts, **values)  # the engine checks the types


def _outputs(result: EmbedResult | EngineError) -> tuple[Output, ...] | EngineError:
    if isinstance(result, EngineError):
        return result
    rows = zip(result.vectors, result.tokens, result.truncated, strict=True)
    return tuple(Embedding(vector, tokens, truncated) for vector, tokens, truncated in rows)
