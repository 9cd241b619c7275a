"""Bodies in and out, as JSON."""

from __future__ import annotations

import json
from typing import Any

from fastapi import Request, Response

from .errors import ApiError
from .sse import to_json


def json_answer(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a JSON response."""
    return Response(to_json(value), status, headers, media_type="application/json")


def error_answer(error: ApiError) -> Response:
    """Return an error in OpenAI's form."""
    return json_answer(error.body, error.status, error.headers)


async def read_json(request: Request) -> dict[str, Any]:
    """Return a request's body, which must be a JSON object.

    :raises ApiError: it is not.
    """
    return parse_json(await request.body())


def parse_json(data: bytes) -> dict[str, Any]:
    """Read a JSON object; numbers that JSON does not know are refused.

    :raises ApiError: it is not one.
    """
    try:
        value = json.loads(data, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise ApiError(400, "The body is not JSON.", code="invalid_json") from None
    if not isinstance(value, dict):
        raise ApiError(400, "The body is not a JSON object.", code="invalid_json")
    return value


def _no_number(_: str) -> None:
    raise ValueError("not a number of JSON")
