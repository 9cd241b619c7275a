"""Errors as OpenAI's clients read them: ``{"error": {message, type, param, code}}`` and a status.

The status decides what the client library does: it tries again after 408, 409, 429 and 5xx,
unless ``x-should-retry`` says otherwise. Codes in lower case are OpenAI's, in upper case ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError

from ...wire.errors import (
    AppraisalError,
    DeliveryError,
    EndorsementsError,
    Error,
    FetchError,
    MalformedError,
    SealingError,
    VerificationError,
)
from ..judge import JobResult

INVALID: Final = "invalid_request_error"
#: Signed failures that the request itself is the cause of.
_CALLERS: Final = frozenset(
    {
        "ENGINE_BAD_PARAMETERS",
        "ENGINE_BAD_INPUT",
        "ENGINE_INPUT_TOO_LONG",
        "BAD_PARAMETERS",
        "UNSUPPORTED_TASK",
    }
)


class ApiError(Exception):
    """An answer that is an error.

    :param status: of HTTP. :param param: the field that is wrong. :param retry: whether the same request
        may succeed later; None leaves it to the client's own rules.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = INVALID,
        param: str | None = None,
        code: str | None = None,
        retry: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.type, self.param, self.code = status, message, type, param, code
        self.retry = retry
        self.extra: Mapping[str, str] = {}

    @property
    def body(self) -> dict[str, Any]:
        """The JSON body."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return {"error": error}

    @property
    def headers(self) -> dict[str, str]:
        """Headers that tell the client library whether to try again, and others of the answer's."""
        retry = {} if self.retry is None else {"x-should-retry": "true" if self.retry else "false"}
        return {**self.extra, **retry}


def api_error(error: Error) -> ApiError:
    """Return what a caller is told of one of our errors; never an answer in its place."""
    code, message = error.code, error.message or error.code
    status, kind, retry = _told(error)
    return ApiError(status, message, type=kind, code=code, retry=retry)


def _told(error: Error) -> tuple[int, str, bool | None]:
    """Return status, type and whether to try again."""
    known: dict[str, tuple[int, str, bool | None]] = {
        "SESSION_BUSY": (429, "rate_limit_error", True),
        "JOB_UNANSWERED": (504, "timeout_error", None),
        "POOL_UNKNOWN": (503, "trust_error", False),
    }
    if error.code in known:
        return known[error.code]
    if isinstance(error, (AppraisalError, VerificationError, EndorsementsError, SealingError)):
        return 503, "trust_error", False
    if isinstance(error, (DeliveryError, FetchError)):
        return 503, "service_unavailable_error", error.retriable
    if isinstance(error, MalformedError):
        return 400, INVALID, None
    return 500, "server_error", False


def result_error(result: JobResult) -> ApiError | None:
    """Return what a caller is told of a job that did not succeed; None for one that did."""
    code = result.code or result.status.upper()
    match result.status:
        case "succeeded":
            return None
        case "expired":
            return ApiError(504, "no worker ran the job in time", type="timeout_error", code=code)
        case "failed" if code in _CALLERS:
            return ApiError(400, "the worker refused the request", code=code)
        case "failed":
            return ApiError(500, "the worker could not run the job", type="server_error", code=code)
        case "cancelled":
            return ApiError(503, "the job was cancelled", type="server_error", code=code, retry=False)
    return ApiError(503, "the worker rejected the job", type="server_error", code=code)


def shape_error(error: ValidationError) -> ApiError:
    """Return what a caller is told of a body that is not of its form; names fields, never values."""
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    param = ".".join(str(part) for part in first["loc"][:1]) or None
    match first["type"]:
        case "extra_forbidden":
            return ApiError(
                400, f"Unrecognized request argument supplied: {param}", param=param, code="unknown_parameter"
            )
        case "missing":
            return ApiError(
                400, f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter"
            )
    return ApiError(400, f"Invalid value for '{param}': {first['msg']}.", param=param, code="invalid_value")


def not_supported(param: str, why: str) -> ApiError:
    """Return the refusal of a parameter that would change the answer and cannot be honoured."""
    return ApiError(400, f"'{param}' is not supported: {why}.", param=param, code="unsupported_parameter")
