"""Every error of the API is one ``application/problem+json`` (RFC 9457) with our stable code."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from ....wire.errors import ConfigurationError, DeliveryError, Error, MalformedError, VerificationError

LOG: Final = logging.getLogger("ephemeralml.gateway")
MEDIA_TYPE: Final = "application/problem+json"
RETRY_SECONDS: Final = 5

#: Codes whose status is not that of their kind of error.
STATUS: Final = {
    "UNAUTHENTICATED": 401,
    "SCOPE_MISSING": 403,
    "NOT_FOUND": 404,
    "BATCH_NOT_FOUND": 404,
    "POOL_NOT_FOUND": 404,
    "NO_STATEMENT": 404,
    "WEBHOOK_NOT_FOUND": 404,
    "DELIVERY_NOT_FOUND": 404,
    "BLOB_MISSING": 404,
    "METHOD_NOT_ALLOWED": 405,
    "UPLOAD_TIMEOUT": 408,
    "BATCH_EXISTS": 409,
    "UPLOAD_IN_PROGRESS": 409,
    "UPLOAD_LOST": 409,
    "BATCH_ENDED": 409,
    "BATCH_ACTIVE": 409,
    "BATCH_UNFINISHED": 409,
    "NOT_COMMITTED": 409,
    "UPLOAD_TOO_LARGE": 413,
    "UNSUPPORTED_MEDIA_TYPE": 415,
    "IDEMPOTENCY_MISMATCH": 422,
    "QUOTA_JOBS": 429,
    "QUOTA_BYTES": 429,
    "QUOTA_WEBHOOKS": 429,
    "RATE_LIMITED": 429,
    "WEBHOOKS_OFF": 503,
}


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str = Field(default="about:blank", description="Always about:blank: `code` says which problem.")
    title: str = Field(description="The HTTP status in words.")
    status: int = Field(ge=400, le=599)
    detail: str = Field(description="One line for people; may change.")
    code: str = Field(pattern="^[A-Z][A-Z0-9_]{0,63}$", description="Stable; for programs.")
    retriable: bool = Field(description="Whether the same request may succeed later, unchanged.")


class Refusal(Error):
    """A request that the API itself refuses, with the headers of its answer."""

    def __init__(
        self, code: str, message: str, *, retriable: bool = False, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(code, message, retriable=retriable)
        self.headers = headers or {}


def status_of(error: Error) -> int:
    """Return the HTTP status of an error."""
    if error.code in STATUS:
        return STATUS[error.code]
    if isinstance(error, DeliveryError):
        return 503
    if isinstance(error, MalformedError):
        return 400
    return 502 if isinstance(error, VerificationError) else 500


def problem(error: Error) -> JSONResponse:
    """Return the answer that an error becomes."""
    status = status_of(error)
    headers = dict(error.headers) if isinstance(error, Refusal) else {}
    if status in (429, 503) or error.code == "UPLOAD_IN_PROGRESS":
        headers.setdefault("Retry-After", str(RETRY_SECONDS))
    body = Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=error.message or error.code,
        code=error.code,
        retriable=error.retriable,
    )
    return JSONResponse(body.model_dump(), status, headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Make every error of an app a problem."""

    @app.exception_handler(Error)
    async def ours(_: Request, error: Error) -> JSONResponse:
        return problem(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        # Names of parameters only: a value that is wrong may still be a secret.
        names = sorted({str(item["loc"][-1]) for item in error.errors() if item["loc"]})
        return problem(MalformedError("BAD_REQUEST", f"missing or wrong: {', '.join(names)}"))

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> JSONResponse:
        known = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}
        code = known.get(error.status_code, "BAD_REQUEST")
        text = {404: "there is nothing here", 405: "not with this method"}
        return problem(
            Refusal(code, text.get(error.status_code, "not understood"), headers=dict(error.headers or {}))
            if code in STATUS
            else MalformedError(code, "the request was not understood")
        )


def internal(error: Exception) -> JSONResponse:
    """Return the answer to a fault of our own, and log its kind: its text may hold anything."""
    LOG.error("unexpected fault: %s", type(error).__name__)
    return problem(ConfigurationError("INTERNAL", "an unexpected fault; the gateway's log names its kind"))


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return OpenAPI's description of the problems that a route may answer with."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": content}
        for status in sorted({400, 401, 403, 404, 405, 429, 503, *statuses})
    }
