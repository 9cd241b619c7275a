"""The input file of a batch, checked whole before anything is sealed: one bad line refuses the batch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from ...wire.errors import DeliveryError, Error
from ..inputs import MAX_ITEMS
from .calls import Call
from .errors import ApiError, api_error, shape_error
from .service import Service

MAX_LINE_BYTES: Final = 1 << 20
MAX_CUSTOM_ID: Final = 512
#: So many errors of a file are stated; the rest would not help.
MAX_ERRORS: Final = 100
_KEYS: Final = frozenset({"custom_id", "method", "url", "body"})


class BadInput(Exception):
    """An input file that no batch is made of; ``errors`` as OpenAI states them."""

    def __init__(self, errors: list[dict[str, Any]]) -> None:
        super().__init__("the input file is refused")
        self.errors = errors


def read_batch_input(path: Path, endpoint: str, service: Service) -> dict[str, Call]:
    """Return the calls of a file by their ``custom_id``, in order. Messages name lines, never contents.

    :raises BadInput: with every line that is wrong.
    :raises DeliveryError: the file cannot be read. :raises Error: no worker is trusted now.
    """
    calls: dict[str, Call] = {}
    errors: list[dict[str, Any]] = []
    for number, line in _lines(path):
        try:
            custom_id, call = _call(line, endpoint, service)
            if custom_id in calls:
                message = "The custom_id is not unique."
                raise ApiError(400, message, param="custom_id", code="duplicate_custom_id")
            if len(calls) >= MAX_ITEMS:
                message = f"A batch holds at most {MAX_ITEMS} requests."
                raise BadInput([*errors, _stated(number, ApiError(400, message, code="too_many_tasks"))])
            if calls and call.pool != next(iter(calls.values())).pool:
                raise ApiError(400, "All requests name one model.", param="model", code="mismatched_model")
            calls[custom_id] = call
        except ApiError as error:
            errors.append(_stated(number, error))
            if len(errors) >= MAX_ERRORS:
                break
    if not calls and not errors:
        errors = [_stated(None, ApiError(400, "The file holds no requests.", code="empty_file"))]
    if errors:
        raise BadInput(errors)
    return calls


def _call(line: bytes, endpoint: str, service: Service) -> tuple[str, Call]:
    """Return one line's call.

    :raises ApiError: what is wrong with it. :raises Error: no worker is trusted now.
    """
    if len(line) > MAX_LINE_BYTES:
        raise ApiError(400, f"A line holds at most {MAX_LINE_BYTES} bytes.", code="line_too_long")
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise ApiError(400, "The line is not JSON.", code="invalid_json_line") from None
    if not isinstance(value, dict) or value.keys() != _KEYS:
        raise ApiError(400, "A line is custom_id, method, url and body.", code="invalid_json_line")
    custom_id = value["custom_id"]
    if not isinstance(custom_id, str) or not 1 <= len(custom_id) <= MAX_CUSTOM_ID:
        raise ApiError(
            400, f"A text of 1 to {MAX_CUSTOM_ID} characters.", param="custom_id", code="invalid_value"
        )
    if value["method"] != "POST" or value["url"] != endpoint:
        raise ApiError(400, f"Only POST to {endpoint}, as the batch says.", param="url", code="invalid_url")
    return custom_id, _read(endpoint, value["body"], custom_id, service)


def _read(endpoint: str, body: object, custom_id: str, service: Service) -> Call:
    try:
        call = service.read(endpoint, body, custom_id)
    except ValidationError as error:
        raise shape_error(error) from None
    except Error as error:
        told = api_error(error)
        if told.status != 400:
            raise
        raise told from None
    if call.stream:
        raise ApiError(400, "A batch streams nothing.", param="stream", code="invalid_value")
    return call


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield lines that are not empty, with their numbers; of one that is too long only the beginning."""
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(MAX_LINE_BYTES + 2):
                number += 1
                piece = line
                while piece and not piece.endswith(b"\n"):  # skip what is beyond the bound
                    piece = file.readline(MAX_LINE_BYTES)
                if line.strip():
                    yield number, line.strip()
    except OSError as error:
        message = f"the batch's input file cannot be read: {error.strerror}"
        raise DeliveryError("PROXY_STORE_UNAVAILABLE", message, retriable=False) from None


def _stated(number: int | None, error: ApiError) -> dict[str, Any]:
    return {"code": error.code, "message": error.message, "line": number, "param": error.param}
