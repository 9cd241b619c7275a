"""What an engine is: requests in, float32 vectors out, one error never another's.

Sizes here are limits of one request. They are far above what a sealed job can
hold usefully and far below what would hurt a worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from ...wire.errors import EngineError

MAX_TEXTS = 4096
MAX_TEXT_BYTES = 1 << 20
MAX_PROMPT_BYTES = 8192

Backend = Literal["openvino", "torch", "noop"]
Precision = Literal["auto", "f32", "bf16"]


@dataclass(frozen=True, slots=True)
class EmbedRequest:
    """Texts that are to become vectors under one set of parameters.

    :param texts: 1 to ``MAX_TEXTS`` texts, each at most ``MAX_TEXT_BYTES`` of UTF-8; empty texts are fine.
    :param normalize: scale each vector to length 1 (models that normalise themselves do so anyway).
    :param dimensions: keep only the first so many numbers (before normalising); None keeps all.
    :param prompt: put before each text; None uses the model's default prompt, if it has one.
    """

    texts: tuple[str, ...]
    normalize: bool = True
    dimensions: int | None = None
    prompt: str | None = None


@dataclass(frozen=True, slots=True)
class EmbedResult:
    """One vector for each text of a request, in order.

    :param vectors: float32, little-endian.
    :param tokens: tokens that the model read per text, special tokens included, after truncation.
    :param truncated: whether each text was longer than the model reads.
    """

    vectors: list[bytes]
    tokens: list[int]
    truncated: list[bool]


@runtime_checkable
class Engine(Protocol):
    """Runs requests on one loaded model; safe to call from several threads."""

    @property
    def name(self) -> str:
        """Name of the software that computes, e.g. ``"openvino"``."""
        ...

    @property
    def backend(self) -> str:
        """The name that :func:`load_engine` was given."""
        ...

    @property
    def precision(self) -> str:
        """Number format of the matrix products as really used: ``"f32"`` or ``"bf16"``."""
        ...

    @property
    def version(self) -> str:
        """Version of the software that computes."""
        ...

    @property
    def model_dimensions(self) -> int:
        """Numbers in a full vector."""
        ...

    @property
    def max_tokens(self) -> int:
        """Longest input in tokens, special tokens included; longer ones are truncated."""
        ...

    @property
    def tasks(self) -> frozenset[str]:
        """Tasks of jobs that this engine can run."""
        ...

    def check(self, request: EmbedRequest) -> None:
        """Refuse what :meth:`run` would refuse, without computing.

        :raises EngineError: ``ENGINE_BAD_PARAMETERS``, ``ENGINE_BAD_INPUT`` or ``ENGINE_INPUT_TOO_LONG``.
        """
        ...

    def run(self, requests: Sequence[EmbedRequest]) -> list[EmbedResult]:
        """Answer all requests, in order, in as few forward passes as fit.

        :raises EngineError: the first refusal; nothing was computed then. :class:`MicroBatcher` answers
            each request by itself.
        """
        ...


def check_request(request: EmbedRequest, model_dimensions: int) -> None:
    """Refuse a request that no engine can answer; see :meth:`Engine.check`."""
    if not isinstance(request.texts, tuple) or not 1 <= len(request.texts) <= MAX_TEXTS:
        raise EngineError("ENGINE_BAD_PARAMETERS", f"a request holds 1 to {MAX_TEXTS} texts")
    if type(request.normalize) is not bool:
        raise EngineError("ENGINE_BAD_PARAMETERS", "normalize must be true or false")
    dimensions = request.dimensions
    if dimensions is not None and (type(dimensions) is not int or not 1 <= dimensions <= model_dimensions):
        raise EngineError("ENGINE_BAD_PARAMETERS", f"dimensions must be 1 to {model_dimensions}")
    if request.prompt is not None:
        check_text(request.prompt, MAX_PROMPT_BYTES, "the prompt")
    for text in request.texts:
        check_text(text, MAX_TEXT_BYTES, "a text")


def check_text(text: object, limit: int, what: str) -> None:
    """Refuse what is not text, not UTF-8 (lone surrogates) or longer than ``limit`` bytes."""
    if not isinstance(text, str):
        raise EngineError("ENGINE_BAD_INPUT", f"{what} must be a string")
    try:
        size = len(text) if text.isascii() else len(text.encode("utf-8"))
    except UnicodeEncodeError:
        raise EngineError("ENGINE_BAD_INPUT", f"{what} is not valid Unicode") from None
    if size > limit:
        raise EngineError("ENGINE_INPUT_TOO_LONG", f"{what} is longer than {limit} bytes")
