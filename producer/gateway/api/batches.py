"""Batches over HTTP: take an upload, show, list, cancel, delete."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from ....wire.errors import DeliveryError, Error, MalformedError
from ..store import batches, identity
from ..store.batches import Batch
from ..upload import Form, Receiver, UploadLimits
from .context import Gateway, GatewayDep, Reader, Writer
from .problems import LOG, Refusal, responses
from .shapes import BatchPage, BatchShape, Identity

router: Final = APIRouter(prefix="/v1", tags=["batches"])

FORMS: Final[dict[str, Form]] = {
    "application/cbor-seq": "cbor",
    "application/x-ndjson": "ndjson",
    "application/jsonl": "ndjson",
}
#: Bytes that are gathered before a thread takes them.
CHUNK_BYTES: Final = 256 << 10
MAX_PAGE: Final = 100
#: How long an upload waits for others to end before it is told to come again.
QUEUE_SECONDS: Final = 10.0
_DIGEST: Final = re.compile(r"(?:^|,)\s*sha-256=:([A-Za-z0-9+/=]{44}):\s*(?:,|$)")

BatchName = Annotated[str, Path(pattern="^batch_[0-9a-f]{32}$", description="`batch_` and the batch id.")]
_UPLOAD: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "description": "The head, then the jobs: see spec/gateway.md.",
        "content": {
            "application/cbor-seq": {"schema": {"type": "string", "format": "binary"}},
            "application/x-ndjson": {"schema": {"type": "string"}},
        },
    }
}


@router.post(
    "/batches",
    status_code=201,
    response_model=BatchShape,
    responses={
        200: {"model": BatchShape, "description": "Accepted before, by the same idempotency key."},
        **responses(408, 409, 413, 415, 422),
    },
    openapi_extra=_UPLOAD,
)
async def create(
    request: Request,
    gateway: GatewayDep,
    key: Writer,
    idempotency_key: Annotated[str | None, Header(pattern="^[!-~]{1,128}$")] = None,
    content_digest: Annotated[str | None, Header(description="RFC 9530; sha-256 is checked.")] = None,
) -> Response:
    """Take a batch of sealed jobs, whole or not at all."""
    form = _form(request)
    limits = UploadLimits(gateway.settings.max_upload_bytes, gateway.settings.max_batch_jobs)
    _check_length(request, limits.max_bytes)
    receiver = Receiver(
        gateway.store,
        key.tenant,
        form,
        limits,
        gateway.now,
        key=idempotency_key,
        digest=None if content_digest is None else _digest(content_digest),
    )
    async with _turn(request):
        batch, replayed = await _receive(request, gateway, receiver)
    headers = {"Location": f"/v1/batches/{batch.name}"}
    if replayed:
        headers["Idempotent-Replayed"] = "true"
    return JSONResponse(BatchShape.of(batch).model_dump(), 200 if replayed else 201, headers)


async def _receive(request: Request, gateway: Gateway, receiver: Receiver) -> tuple[Batch, bool]:
    """Feed the body to the receiver from threads; whatever ends this early removes what was staged."""
    try:
        async with asyncio.timeout(gateway.settings.max_request_s):
            async for chunk in _chunks(request, gateway.settings.read_timeout_s):
                await run_in_threadpool(receiver.feed, chunk)
            return await run_in_threadpool(receiver.finish)
    except TimeoutError:
        raise Refusal("UPLOAD_TIMEOUT", "the upload took too long", retriable=True) from None
    except ClientDisconnect:
        raise MalformedError("TRUNCATED_UPLOAD", "the connection ended before the upload did") from None
    finally:
        await asyncio.shield(run_in_threadpool(_abort, receiver))


def _abort(receiver: Receiver) -> None:
    try:
        receiver.abort()
    except Error as error:
        LOG.warning("a broken upload is left to the sweep: %s", error.code)


async def _chunks(request: Request, timeout_s: float) -> AsyncIterator[bytes]:
    """Yield the body in larger pieces than the network brings."""
    held = bytearray()
    stream = aiter(request.stream())
    while True:
        async with asyncio.timeout(timeout_s):
            piece = await anext(stream, None)
        if piece is None:
            break
        held += piece
        if len(held) >= CHUNK_BYTES:
            yield bytes(held)
            held.clear()
    yield bytes(held)


@asynccontextmanager
async def _turn(request: Request) -> AsyncIterator[None]:
    """Wait for one of the few places for uploads, so that memory stays bounded."""
    places: asyncio.Semaphore = request.app.state.uploads
    try:
        async with asyncio.timeout(QUEUE_SECONDS):
            await places.acquire()
    except TimeoutError:
        raise DeliveryError("BUSY", "too many uploads at once: come again") from None
    try:
        yield
    finally:
        places.release()


def _form(request: Request) -> Form:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if kind not in FORMS or encoding != "identity":
        raise Refusal("UNSUPPORTED_MEDIA_TYPE", f"an upload is one of {', '.join(FORMS)}, and not compressed")
    return FORMS[kind]


def _check_length(request: Request, maximum: int) -> None:
    length = request.headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        raise MalformedError("BAD_REQUEST", "missing or wrong: content-length")
    if len(length) > 18 or int(length) > maximum:
        raise MalformedError("UPLOAD_TOO_LARGE", f"an upload has at most {maximum} bytes")


def _digest(header: str) -> bytes | None:
    match = _DIGEST.search(header)
    if match is None:
        if "sha-256" in header:
            raise MalformedError("BAD_REQUEST", "missing or wrong: content-digest")
        return None
    try:
        return base64.b64decode(match[1], validate=True)
    except binascii.Error:
        raise MalformedError("BAD_REQUEST", "missing or wrong: content-digest") from None


@router.get("/batches", responses=responses())
def list_batches(
    gateway: GatewayDep,
    key: Reader,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 20,
    after: Annotated[str | None, Query(pattern="^batch_[0-9a-f]{32}$")] = None,
) -> BatchPage:
    """List batches, the newest first."""
    with gateway.store.reading() as connection:
        if after is not None and batches.find(connection, key.tenant.id, batch_id(after)) is None:
            raise no_batch()
        found = batches.page(connection, key.tenant.id, limit + 1, None if after is None else batch_id(after))
    shown = [BatchShape.of(batch) for batch in found[:limit]]
    return BatchPage(data=shown, has_more=len(found) > limit, last_id=shown[-1].id if shown else None)


@router.get("/batches/{name}", responses=responses())
def show(gateway: GatewayDep, key: Reader, name: BatchName) -> BatchShape:
    """Show a batch: status, counts, times."""
    return BatchShape.of(find(gateway, key.tenant.id, name))


@router.post("/batches/{name}/cancel", responses=responses(409))
def cancel(gateway: GatewayDep, key: Writer, name: BatchName) -> BatchShape:
    """Cancel a batch: workers sign `cancelled` for jobs that they have not run."""
    with gateway.store.transaction() as connection:
        batch = batches.cancel(connection, key.tenant.id, batch_id(name), gateway.now())
    if batch is None:
        raise no_batch()
    return BatchShape.of(batch)


@router.delete("/batches/{name}", status_code=204, responses=responses(409))
def delete(gateway: GatewayDep, key: Writer, name: BatchName) -> Response:
    """Delete a batch that has ended, with its results."""
    with gateway.store.transaction() as connection:
        if not batches.delete(connection, key.tenant.id, batch_id(name)):
            raise no_batch()
    return Response(status_code=204)


@router.get("/me", tags=["keys"], responses=responses())
def me(gateway: GatewayDep, key: Reader) -> Identity:
    """Show whose API key this is, its quotas, and the reply queue that jobs must name."""
    with gateway.store.reading() as connection:
        used = batches.usage(connection, key.tenant.id)
        reply_to = identity.reply_to(connection)
    return Identity(
        tenant=key.tenant.name,
        key=key.prefix,
        scopes=sorted(key.scopes),
        jobs_in_flight=used.jobs,
        max_jobs=key.tenant.max_jobs,
        bytes_stored=used.stored,
        max_bytes=key.tenant.max_bytes,
        reply_to=reply_to,
    )


def batch_id(name: str) -> bytes:
    """Return the 16 bytes of a batch's name."""
    return bytes.fromhex(name.removeprefix("batch_"))


def find(gateway: Gateway, tenant_id: int, name: str) -> Batch:
    """Return a tenant's batch.

    :raises Refusal: ``BATCH_NOT_FOUND``, the same whether another tenant has one of that name or not.
    """
    with gateway.store.reading() as connection:
        batch = batches.find(connection, tenant_id, batch_id(name))
    if batch is None:
        raise no_batch()
    return batch


def no_batch() -> Refusal:
    """Return the answer to a name that the tenant has no batch of."""
    return Refusal("BATCH_NOT_FOUND", "there is no such batch")
