"""``/v1/embeddings``: one request is one job, its inputs are the job's texts."""

from __future__ import annotations

import base64
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import Field

from ...wire.job import MAX_INPUTS, Embedding
from ..inputs import InputItem
from ..judge import JobResult
from ..outputs import vector_of
from .calls import Body, Call
from .catalogue import Catalogue
from .errors import ApiError


class EmbeddingsBody(Body):
    """The body of a request; ``user`` is taken and goes nowhere."""

    model: str
    input: Any
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1, le=65_536)] | None = None
    user: str | None = None


def read_embeddings(
    value: object, catalogue: Catalogue, custom_id: str, *, allow_truncation: bool = False
) -> Call:
    """Read a request.

    :raises ApiError: it is not one that can be answered.
    :raises pydantic.ValidationError: it is not of its form.
    """
    body = EmbeddingsBody.model_validate(value)
    texts = _texts(body.input)
    pool = catalogue.pool(body.model, "embed")
    item = InputItem(custom_id, texts, {} if body.dimensions is None else {"dimensions": body.dimensions})
    render = partial(_render, body.encoding_format, allow_truncation)
    return Call("embed", body.model, pool, item, "emb-", render)


def _texts(value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    if any(isinstance(part, (int, list)) and not isinstance(part, bool) for part in values):
        raise ApiError(
            400,
            "Token arrays are not supported: the tokenizer runs inside the TEE. Send texts.",
            param="input",
            code="unsupported_input",
        )
    if not 1 <= len(values) <= MAX_INPUTS or not all(isinstance(part, str) and part for part in values):
        message = f"'input' must be a non-empty string or 1 to {MAX_INPUTS} of them."
        raise ApiError(400, message, param="input", code="invalid_value")
    return tuple(values)


def _render(
    encoding: Literal["float", "base64"],
    allow_truncation: bool,
    result: JobResult,
    response_id: str,
    created: int,
) -> dict[str, Any]:
    assert result.response is not None  # noqa: S101 - held by who judged it
    outputs = [output for output in result.response.outputs if isinstance(output, Embedding)]
    cut = [index for index, output in enumerate(outputs) if output.truncated]
    if cut and not allow_truncation:
        raise ApiError(
            400,
            f"{len(cut)} of {len(outputs)} inputs are longer than the model reads, "
            f"the first at index {cut[0]}; shorten them, or start the proxy with --allow-truncation.",
            param="input",
            code="context_length_exceeded",
        )
    tokens = sum(output.tokens for output in outputs)
    body: dict[str, Any] = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": _numbers(output, encoding)}
            for index, output in enumerate(outputs)
        ],
        "model": result.response.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    return body | ({"ephemeralml": {"truncated": cut}} if cut else {})


def _numbers(output: Embedding, encoding: Literal["float", "base64"]) -> str | tuple[float, ...]:
    """Return float32 numbers, little-endian in base64 as OpenAI's clients expect, or as they are."""
    return base64.b64encode(output.vector).decode() if encoding == "base64" else vector_of(output)
