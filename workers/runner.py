"""Turns opened jobs into engine requests and engine results into outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from ..wire.errors import EngineError
from ..wire.job import Embedding, EngineInfo, Job, Output, Task
from .engines import EmbedRequest, EmbedResult, MicroBatcher

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
