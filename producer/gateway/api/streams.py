"""Results, outcomes and statement of a batch. Streams go on from any point: ``after`` counts ends seen."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from ....wire.encoding import encode
from ....wire.pack import SealedReply, decode_replies, encode_replies
from ..batch_file import batch_file
from ..store import batches, replies
from ..store.batches import Batch
from ..store.models import ENDED
from ..store.replies import EndedJob, StoredPack
from ..upload.lines import to_base64
from .batches import BatchName, find
from .context import Gateway, GatewayDep, Reader
from .problems import Refusal, responses

router: Final = APIRouter(prefix="/v1/batches/{name}", tags=["results"])

NDJSON: Final = "application/x-ndjson"
CBOR_SEQ: Final = "application/cbor-seq"
#: What one stream reads at once.
CHUNK_BYTES: Final = 1 << 20
MAX_WAIT_S: Final = 30
POLL_SECONDS: Final = 0.2

After = Annotated[int, Query(ge=0, le=1 << 31, description="How many ends were seen before.")]
Wait = Annotated[
    float, Query(ge=0, le=MAX_WAIT_S, description="Seconds to wait for more where there is nothing new.")
]
_BODY: Final[dict[str, Any]] = {
    NDJSON: {"schema": {"type": "string"}},
    CBOR_SEQ: {"schema": {"type": "string", "format": "binary"}},
}
_OK: Final[dict[int | str, dict[str, Any]]] = {200: {"description": "A stream.", "content": _BODY}}
#: Makes the items of a stream from a stored pack and what the table says of its jobs.
Items = Callable[[str, StoredPack, list[EndedJob], int], Iterator[bytes]]


@router.get("/results", responses=_OK | responses(), response_class=Response)
async def results(
    request: Request, gateway: GatewayDep, key: Reader, name: BatchName, after: After = 0, wait: Wait = 0
) -> Response:
    """Stream sealed replies in order of arrival: outcome, and for a success the sealed result with receipt.

    `Accept: application/cbor-seq` gives packs, anything else JSON lines, one per job.
    """
    batch = await run_in_threadpool(find, gateway, key.tenant.id, name)
    packed = _wants_cbor(request)
    items = _result_packs if packed else _result_lines
    return _streamed(packed, _follow(gateway, batch, after, wait, items))


@router.get("/outcomes", responses=_OK | responses(409), response_class=Response)
async def outcomes(
    request: Request,
    gateway: GatewayDep,
    key: Reader,
    name: BatchName,
    after: After = 0,
    wait: Wait = 0,
    order: Annotated[
        Literal["arrival", "index"],
        Query(description="index: the batch file of spec/batch.md, once every job has ended."),
    ] = "arrival",
) -> Response:
    """Stream the signed outcomes, which hold no result: what an auditor needs."""
    batch = await run_in_threadpool(find, gateway, key.tenant.id, name)
    if order == "index":
        return _streamed(True, await run_in_threadpool(_batch_file, gateway, batch))
    packed = _wants_cbor(request)
    items = _outcome_items if packed else _outcome_lines
    return _streamed(packed, _follow(gateway, batch, after, wait, items))


@router.get(
    "/statement",
    responses={
        200: {"description": "COSE_Sign1 (spec/batch.md).", "content": {"application/cose": {}}},
        **responses(),
    },
    response_class=Response,
)
def statement(gateway: GatewayDep, key: Reader, name: BatchName) -> Response:
    """Get the statement in which a worker signed that the batch is whole."""
    batch = find(gateway, key.tenant.id, name)
    with gateway.store.reading() as connection:
        found = batches.statement_of(connection, batch.id)
    if found is None:
        raise Refusal("NO_STATEMENT", "no worker has signed a statement for this batch yet")
    return Response(found, media_type="application/cose")


def _wants_cbor(request: Request) -> bool:
    return CBOR_SEQ in request.headers.get("accept", "")


def _streamed(packed: bool, body: AsyncIterator[bytes] | Iterator[bytes]) -> Response:
    kind = CBOR_SEQ if packed else NDJSON
    return StreamingResponse(body, media_type=kind, headers={"Cache-Control": "no-store"})


async def _follow(
    gateway: Gateway, batch: Batch, after: int, wait: float, items: Items
) -> AsyncIterator[bytes]:
    """Yield what there is from ``after`` on; where that is nothing, what comes within ``wait`` seconds."""
    clock = asyncio.get_running_loop().time
    begun = clock()
    seen = after
    while clock() - begun < gateway.settings.max_request_s:
        data, seen, over = await run_in_threadpool(_read, gateway, batch, seen, items)
        if data:
            yield data
        elif over or seen > after or clock() - begun >= wait:
            return
        else:
            await asyncio.sleep(POLL_SECONDS)


def _read(gateway: Gateway, batch: Batch, seen: int, items: Items) -> tuple[bytes, int, bool]:
    """Return the next items, how many ends were seen with them, and whether no more will come."""
    out: list[bytes] = []
    with gateway.store.reading() as connection:
        now = batches.get(connection, batch.id)
        for pack in replies.after(connection, batch.id, seen, max_bytes=CHUNK_BYTES):
            skip = max(0, seen - pack.first)
            jobs = replies.ends(connection, batch.id, pack.indexes[skip:])
            out += items(batch.pool, pack, jobs, skip)
            seen = pack.first + len(pack.indexes)
    return b"".join(out), seen, now is None or now.state in ENDED


def _result_packs(pool: str, pack: StoredPack, _: list[EndedJob], skip: int) -> Iterator[bytes]:
    data = pack.data if skip == 0 else encode_replies(pool, decode_replies(pack.data)[1][skip:])
    yield encode([pack.first + skip, data])


def _result_lines(_: str, pack: StoredPack, jobs: list[EndedJob], skip: int) -> Iterator[bytes]:
    for job, reply in zip(jobs, decode_replies(pack.data)[1][skip:], strict=True):
        yield _line(_ended(job, reply) | _sealed(reply))


def _outcome_items(_: str, pack: StoredPack, jobs: list[EndedJob], skip: int) -> Iterator[bytes]:
    for job, reply in zip(jobs, decode_replies(pack.data)[1][skip:], strict=True):
        yield encode([job.ordinal, job.index, reply.outcome])


def _outcome_lines(_: str, pack: StoredPack, jobs: list[EndedJob], skip: int) -> Iterator[bytes]:
    for job, reply in zip(jobs, decode_replies(pack.data)[1][skip:], strict=True):
        yield _line(_ended(job, reply))


def _ended(job: EndedJob, reply: SealedReply) -> dict[str, object]:
    return {
        "seen": job.ordinal + 1,
        "index": job.index,
        "custom_id": job.custom_id,
        "job_id": reply.job_id.hex(),
        "status": job.status,
        "code": job.code,
        "ended_at": int(job.ended_at),
        "outcome": to_base64(reply.outcome),
    }


def _sealed(reply: SealedReply) -> dict[str, object]:
    if reply.header is None or reply.sealed is None:
        return {"header": None, "recipient": None, "iv": None, "ciphertext": None}
    return {
        "header": to_base64(reply.header),
        "recipient": to_base64(reply.sealed.recipient),
        "iv": to_base64(reply.sealed.iv),
        "ciphertext": to_base64(reply.sealed.ciphertext),
    }


def _line(value: dict[str, object]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _batch_file(gateway: Gateway, batch: Batch) -> Iterator[bytes]:
    with gateway.store.reading() as connection:
        return batch_file(connection, batch)
