"""The ASGI application: routes, and every error in OpenAI's form."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from ...wire.errors import Error
from .attestation import attestation_report
from .batch_runner import BatchRunner
from .errors import ApiError, api_error, shape_error
from .file_routes import add_batch_routes, add_file_routes
from .guard import App, Guard
from .read import error_answer, json_answer, read_json
from .receipts import Part
from .service import CHAT, EMBEDDINGS, Service
from .stores import Stores

#: What is left of an upload beside the file: the form's other parts.
FORM_BYTES: Final = 64 << 10
COSE: Final = 'application/cose; cose-type="cose-sign1"'
GONE: Final = 499
_PARTS: Final[dict[str, tuple[Part, str]]] = {
    "air": ("receipt", COSE),
    "outcome": ("outcome", COSE),
    "evidence": ("evidence", "application/octet-stream"),
}
T = TypeVar("T")


def make_app(service: Service, stores: Stores, runner: BatchRunner, token: str | None) -> App:
    """Return the application behind its guard.

    :param token: None where no token is asked for.
    """
    app = FastAPI(title="ephemeralml proxy", docs_url=None, redoc_url=None, openapi_url=None)
    _add_errors(app)
    _add_inference(app, service)
    _add_trust(app, service, stores)
    settings = service.settings
    add_file_routes(app, stores, runner.batches, settings.max_file_bytes)
    add_batch_routes(app, stores, runner)
    return Guard(
        app,
        token,
        frozenset({settings.host.lower()}) if settings.dangerous_not_loopback else frozenset(),
        settings.max_body_bytes,
        settings.max_file_bytes + FORM_BYTES,
    )


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def refused(_: Request, error: ApiError) -> Response:
        return error_answer(error)

    @app.exception_handler(Error)
    async def ours(_: Request, error: Error) -> Response:
        return error_answer(api_error(error))

    @app.exception_handler(ValidationError)
    async def shape(_: Request, error: ValidationError) -> Response:
        return error_answer(shape_error(error))

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> Response:
        known = {404: "Unknown path.", 405: "The path does not take this method."}
        message = known.get(error.status_code, "The request cannot be read.")
        return error_answer(ApiError(error.status_code, message, code="unknown_url"))

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=GONE)

    @app.exception_handler(Exception)
    async def unexpected(_: Request, error: Exception) -> Response:
        return error_answer(ApiError(500, "An unexpected fault.", type="server_error", code="UNEXPECTED"))


def _add_inference(app: FastAPI, service: Service) -> None:
    @app.post(EMBEDDINGS)
    async def embeddings(request: Request) -> Response:
        call = service.read(EMBEDDINGS, await read_json(request), "1")
        answer = await unless_gone(request, service.answer(call))
        return Response(answer.body, headers=dict(answer.headers), media_type="application/json")

    @app.post(CHAT)
    async def chat(request: Request) -> Response:
        call = service.read(CHAT, await read_json(request), "1")
        if not call.stream:
            answer = await unless_gone(request, service.answer(call))
            return Response(answer.body, headers=dict(answer.headers), media_type="application/json")
        events, headers = await unless_gone(request, service.stream(call))
        headers |= {"cache-control": "no-store"}
        return StreamingResponse(events, headers=headers, media_type="text/event-stream")

    @app.get("/v1/models")
    async def models() -> Response:
        return json_answer({"object": "list", "data": service.catalogue.models()})

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> Response:
        return json_answer(service.catalogue.model(name))


def _add_trust(app: FastAPI, service: Service, stores: Stores) -> None:
    @app.get("/attestation")
    async def attestation() -> Response:
        return json_answer(await asyncio.to_thread(attestation_report, service.session, service.settings))

    @app.get("/healthz")
    async def healthz() -> Response:
        service.session.client.trust.current()
        return json_answer({"status": "ok"})

    @app.get("/receipts/{response_id}")
    async def receipt(response_id: str, request: Request) -> Response:
        if "application/cose" in request.headers.get("accept", ""):
            return await receipt_part(response_id, "air")
        report = await asyncio.to_thread(stores.receipts.report, response_id)
        if report is None:
            raise _no_receipt()
        return json_answer(report)

    @app.get("/receipts/{response_id}/{part}")
    async def receipt_part(response_id: str, part: str) -> Response:
        if part not in _PARTS:
            raise _no_receipt()
        name, media_type = _PARTS[part]
        data = await asyncio.to_thread(stores.receipts.part, response_id, name)
        if data is None:
            raise _no_receipt()
        return Response(data, media_type=media_type)


def _no_receipt() -> ApiError:
    return ApiError(404, "No such receipt is kept.", code="RECEIPT_UNKNOWN")


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return what a coroutine returns; cancel it when the caller goes away first.

    :raises ClientDisconnect: nobody is there to answer.
    """
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientDisconnect
    finally:
        for future in (task, watch):
            future.cancel()
            with suppress(asyncio.CancelledError, ApiError, Error):
                await future


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
