"""Routes of files and batches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, Literal, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse
from pydantic import Field

from .batch_runner import BatchRunner
from .batch_store import Batch, BatchStore
from .calls import Body
from .errors import ApiError
from .files import StoredFile
from .read import json_answer, read_json
from .stores import Stores
from .upload import receive_upload

MAX_METADATA: Final = 16
Row = TypeVar("Row", StoredFile, Batch)


class BatchBody(Body):
    """The body that makes a batch."""

    input_file_id: str
    endpoint: Literal["/v1/embeddings", "/v1/chat/completions"]
    completion_window: Literal["24h"]
    metadata: Annotated[dict[str, str], Field(max_length=MAX_METADATA)] | None = None


def add_file_routes(app: FastAPI, stores: Stores, batches: BatchStore, max_file_bytes: int) -> None:
    """Add the routes of files.

    :param batches: whose input files are not deleted.
    """

    @app.post("/v1/files")
    async def upload(request: Request) -> Response:
        kind = request.headers.get("content-type", "")
        stored = await receive_upload(stores.files, kind, request.stream(), max_file_bytes)
        return json_answer(stored.to_json())

    @app.get("/v1/files")
    async def files(request: Request) -> Response:
        after, limit, more = _paging(request, 10_000, ("purpose", "order"))
        if more.get("order", "desc") not in ("asc", "desc"):
            raise ApiError(400, "'order' must be asc or desc.", param="order", code="invalid_value")
        newest_first = more.get("order", "desc") == "desc"
        found = await asyncio.to_thread(stores.files.all, more.get("purpose"), newest_first)
        return json_answer(_page(found, after, limit))

    @app.get("/v1/files/{file_id}")
    async def file(file_id: str) -> Response:
        return json_answer(stores.files.get(file_id).to_json())

    @app.get("/v1/files/{file_id}/content")
    async def content(file_id: str) -> Response:
        return FileResponse(stores.files.path(file_id), media_type="application/octet-stream")

    @app.delete("/v1/files/{file_id}")
    async def delete(file_id: str) -> Response:
        if await asyncio.to_thread(batches.uses, file_id):
            raise ApiError(
                409, "A batch that has not ended reads this file.", code="file_in_use", retry=False
            )
        await asyncio.to_thread(stores.files.delete, file_id)
        return json_answer({"id": file_id, "object": "file", "deleted": True})


def add_batch_routes(app: FastAPI, stores: Stores, runner: BatchRunner) -> None:
    """Add the routes of batches."""

    @app.post("/v1/batches")
    async def create(request: Request) -> Response:
        body = BatchBody.model_validate(await read_json(request))
        if stores.files.get(body.input_file_id).purpose != "batch":
            raise ApiError(
                400, "The file's purpose is not 'batch'.", param="input_file_id", code="invalid_value"
            )
        make: Callable[..., Batch] = runner.batches.create
        batch = await asyncio.to_thread(make, body.endpoint, body.input_file_id, body.metadata)
        runner.start(batch.id)
        return json_answer(batch.to_json())

    @app.get("/v1/batches")
    async def listed(request: Request) -> Response:
        after, limit, _ = _paging(request, 100, ())
        return json_answer(_page(await asyncio.to_thread(runner.batches.all), after, limit))

    @app.get("/v1/batches/{batch_id}")
    async def get(batch_id: str) -> Response:
        return json_answer(runner.batches.get(batch_id).to_json())

    @app.post("/v1/batches/{batch_id}/cancel")
    async def cancel(batch_id: str) -> Response:
        return json_answer((await asyncio.to_thread(runner.cancel, batch_id)).to_json())


def _paging(request: Request, most: int, others: Sequence[str]) -> tuple[str | None, int, dict[str, str]]:
    """Return the cursor, how many to list, and the other parameters of a query."""
    given = dict(request.query_params)
    unknown = given.keys() - {"after", "limit", *others}
    if unknown:
        name = min(unknown)[:64]
        raise ApiError(
            400, f"Unrecognized request argument supplied: {name}", param=name, code="unknown_parameter"
        )
    limit = given.get("limit", "20" if most == 100 else str(most))
    if not limit.isdecimal() or not 1 <= int(limit[:9]) <= most:
        raise ApiError(400, f"'limit' must be 1 to {most}.", param="limit", code="invalid_value")
    return given.get("after"), int(limit), given


def _page(found: Sequence[Row], after: str | None, limit: int) -> dict[str, Any]:
    """Return one page of a list in OpenAI's form."""
    start = 0
    if after is not None:
        places = [place for place, row in enumerate(found) if row.id == after]
        if not places:
            raise ApiError(
                404, "There is nothing of this id to go on after.", param="after", code="not_found"
            )
        start = places[0] + 1
    rows = found[start : start + limit]
    return {
        "object": "list",
        "data": [row.to_json() for row in rows],
        "first_id": rows[0].id if rows else None,
        "last_id": rows[-1].id if rows else None,
        "has_more": start + limit < len(found),
    }
