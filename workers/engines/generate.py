"""What an engine that generates is: requests in, text while it is made, one error never another's.

Requests of several jobs are in work at once: what is submitted joins the batch that runs. Two
roles stand here. A :class:`GenerateEngine` is what the worker uses. A :class:`Stepper` is what a
library is wrapped in: it takes prompts as tokens, and gives the next tokens of all of them at
each step; :class:`.generate_loop.GenerateLoop` makes an engine of it, so that stop texts,
deadlines, usage and log-probabilities are the same whatever library computes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, runtime_checkable

from ...wire.encoding import sha256
from ...wire.generation import MAX_SEED, GenerateParameters
from ...wire.job import Completion, Input

MAX_PROMPT_BYTES: Final = 4 << 20
OnText = Callable[[str], None]
"""Takes the next piece of a text; called on the engine's own thread, so it must not block."""


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One input and how its text is to be made.

    :param prompt: a text, or a conversation for the model's chat template. :param seed: 0 to 2^32 - 1.
    :param deadline: monotonic seconds; what there is then is the text.
    """

    prompt: Input
    parameters: GenerateParameters = field(default_factory=GenerateParameters)
    seed: int = 0
    deadline: float = math.inf


class Generation(Protocol):
    """A text that is being made."""

    def __iter__(self) -> Iterator[str]:
        """Yield the text's pieces as they come; ends with the text.

        :raises EngineError: why the text ended early.
        """
        ...

    def result(self, timeout_s: float | None = None) -> Completion:
        """Return the whole text once it is made.

        :raises EngineError: why there is none; ``ENGINE_TIMEOUT`` after ``timeout_s`` seconds.
        """
        ...

    def cancel(self) -> None:
        """Stop making it; its result is then ``ENGINE_CANCELLED``. Harmless at any time."""
        ...


@runtime_checkable
class GenerateEngine(Protocol):
    """Generates on one loaded model; safe to call from several threads."""

    @property
    def name(self) -> str:
        """Name of the software that computes, e.g. ``"exllamav2"``."""
        ...

    @property
    def backend(self) -> str:
        """The name that :func:`.load_engine` was given."""
        ...

    @property
    def precision(self) -> str:
        """Number format of the weights as really used, e.g. ``"f32"`` or ``"exl2"``."""
        ...

    @property
    def version(self) -> str:
        """Version of the software that computes."""
        ...

    @property
    def max_tokens(self) -> int:
        """The context: tokens of prompt and output together."""
        ...

    @property
    def tasks(self) -> frozenset[str]:
        """Tasks of jobs that this engine can run."""
        ...

    @property
    def notice(self) -> str:
        """One line for the operator on what this engine cannot do here; empty where there is nothing."""
        ...

    def check(self, request: GenerateRequest) -> None:
        """Refuse what :meth:`submit` would refuse, without computing.

        :raises EngineError: ``ENGINE_BAD_PARAMETERS``, ``ENGINE_BAD_INPUT``, ``ENGINE_INPUT_TOO_LONG`` or
            ``ENGINE_NO_CHAT_TEMPLATE``.
        """
        ...

    def submit(self, request: GenerateRequest, on_text: OnText | None = None) -> Generation:
        """Put a request into the running batch.

        :param on_text: is given the pieces instead of the generation's iterator.
        :raises EngineError: as :meth:`check`; ``ENGINE_BUSY`` or ``ENGINE_CLOSED`` (retriable).
        """
        ...

    def close(self) -> None:
        """End whatever is in work with ``ENGINE_CLOSED`` and free the model; harmless when called again."""
        ...


@dataclass(frozen=True, slots=True)
class Token:
    """One token that a step gave.

    :param logprob: natural logarithm of its probability; None where none was asked for.
    :param top: the likeliest tokens at its place with theirs, likeliest first.
    """

    id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """What one step gave one sequence.

    :param ended: the library makes no more of it. :param failed: and that because it could not.
    """

    key: int
    tokens: tuple[Token, ...] = ()
    ended: bool = False
    failed: bool = False


class Decoder(Protocol):
    """Turns tokens into text, one by one."""

    def push(self, token: int) -> str:
        """Return the text that this token completes: whole characters, perhaps none."""
        ...

    def flush(self) -> str:
        """Return what is left of an incomplete character."""
        ...


class Reader(Protocol):
    """A model's tokenizer."""

    @property
    def ends(self) -> frozenset[int]:
        """Tokens that end a text."""
        ...

    def encode(self, prompt: str | Sequence[object]) -> list[int]:
        """Return a prompt's tokens; a conversation goes through the chat template.

        :raises EngineError: ``ENGINE_NO_CHAT_TEMPLATE`` or ``ENGINE_BAD_INPUT``.
        """
        ...

    def decoder(self) -> Decoder:
        """Return a decoder for one text."""
        ...

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes that a token stands for."""
        ...


class Stepper(Protocol):
    """A library with a loaded model; called from one thread at a time."""

    name: str
    backend: str
    precision: str
    version: str
    notice: str
    max_tokens: int
    #: Sequences that it takes at once; the others wait outside.
    max_sequences: int
    reader: Reader

    def add(self, key: int, prompt: Sequence[int], request: GenerateRequest, max_new: int) -> None:
        """Begin a sequence.

        :param key: names it from now on. :param max_new: tokens that it may get, at least 1.
        :raises EngineError: this sequence cannot be begun.
        """
        ...

    def step(self) -> Sequence[Step]:
        """Do one step for all sequences, and return what it gave (perhaps nothing yet: a long prompt)."""
        ...

    def drop(self, key: int) -> None:
        """Forget a sequence, ended or not."""
        ...

    def close(self) -> None:
        """Free the model."""
        ...


def seeds_of(parameters: GenerateParameters, salt: bytes, count: int) -> list[int]:
    """Return the seeds of a job's inputs (spec/stream.md, section 1).

    Without one in the job, the first follows from its secret salt: a job that is run again after a
    worker's death draws the same numbers, so that its stream goes on where it was.
    """
    first = parameters.seed
    if first is None:
        first = int.from_bytes(sha256(b"ephemeralml/1 seed" + salt)[:4], "big")
    return [(first + place) % (MAX_SEED + 1) for place in range(count)]
