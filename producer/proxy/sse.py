"""Server-sent events, as OpenAI streams chat completions."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

from ..judge import JobResult
from ..stream import Delta
from .calls import Call
from .chat import completions, fingerprint, finish_reason, logprobs, model_of, usage

DONE: Final = b"data: [DONE]\n\n"


@dataclass
class ChunkWriter:
    """Writes a text as ``chat.completion.chunk`` events."""

    call: Call
    response_id: str = ""

    def __post_init__(self) -> None:
        self._created = int(time.time())
        self._model = self.call.model
        self._begun: set[int] = set()

    def delta(self, delta: Delta) -> list[bytes]:
        """Return the events of a piece of text."""
        return [*self._begin(delta.input), self._choice(delta.input, {"content": delta.text})]

    def end(self, result: JobResult) -> list[bytes]:
        """Return the events that follow the last text: why each ended, and usage where it was asked for."""
        outputs, lines = completions(result), []
        for index, output in enumerate(outputs):
            lines += self._begin(index)
            more = {"logprobs": logprobs(output)} if output.logprobs is not None else {}
            lines.append(self._choice(index, {}, finish_reason=finish_reason(output), **more))
        if self.call.include_usage:
            lines.append(self._event([], usage=usage(outputs), system_fingerprint=fingerprint(result)))
        return lines

    def whole(self, result: JobResult) -> list[bytes]:
        """Return all events of a verified text."""
        self._model = model_of(result)
        texts = [
            Delta("", index, output.text) for index, output in enumerate(completions(result)) if output.text
        ]
        return [line for delta in texts for line in self.delta(delta)] + self.end(result)

    def _begin(self, index: int) -> list[bytes]:
        if index in self._begun:
            return []
        self._begun.add(index)
        return [self._choice(index, {"role": "assistant", "content": ""})]

    def _choice(self, index: int, delta: dict[str, str], **more: Any) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None, **more}
        return self._event([choice])

    def _event(self, choices: list[Any], **more: Any) -> bytes:
        usage_field = {"usage": None} if self.call.include_usage else {}
        return event(
            {
                "id": self.response_id,
                "object": "chat.completion.chunk",
                "created": self._created,
                "model": self._model,
                "choices": choices,
                **usage_field,
                **more,
            }
        )


def to_json(value: object) -> bytes:
    """Return JSON as it goes out; what is not a number in JSON never does."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def event(value: object) -> bytes:
    """Return one event."""
    return b"data: " + to_json(value) + b"\n\n"


async def all_of(lines: list[bytes]) -> AsyncIterator[bytes]:
    """Yield what is there already."""
    for line in lines:
        yield line


async def chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield what was waited for, then the rest."""
    yield first
    async for line in rest:
        yield line
