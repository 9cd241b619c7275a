"""Puts the API together: routes, errors, log, and the housekeeping that runs beside them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.concurrency import run_in_threadpool

from .... import __version__
from ....broker_config.blobs import BlobStore
from ....wire.errors import Error
from ..settings import GatewaySettings
from ..store import Store, batches, staging
from ..webhooks import api as webhook_routes
from ..webhooks.keys import Master
from ..webhooks.settings import WebhookSettings
from . import batches as batch_routes
from . import console, dead_letters, health, pools, problems, streams
from .context import Gateway
from .log import RequestLog
from .problems import LOG, Problem

SWEEP_SECONDS: Final = 10.0
_ABOUT: Final = (
    "Takes batches of sealed jobs, hands out sealed results. The gateway is untrusted: it holds no key and "
    "sees ciphertext, hashes, padded sizes and times only. Every error is application/problem+json with a "
    "stable `code`."
)


def make_app(
    store: Store,
    blobs: BlobStore,
    settings: GatewaySettings,
    *,
    now: Callable[[], float] = time.time,
    webhooks: tuple[WebhookSettings, Master] | None = None,
) -> FastAPI:
    """Return the API over a migrated store, as an ASGI app.

    :param blobs: where workers announce themselves. :param now: a clock, Unix seconds.
    :param webhooks: their settings and master secret; without them no webhook can be made or shown.
    """
    gateway = Gateway(store, blobs, settings, now)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        keeper = asyncio.create_task(_keep_house(gateway))
        yield
        keeper.cancel()
        with suppress(asyncio.CancelledError):
            await keeper

    app = FastAPI(
        title="EphemeralML gateway",
        version=__version__,
        description=_ABOUT,
        lifespan=lifespan,
        docs_url=None,  # both pages load programs from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.gateway = gateway
    app.state.webhooks = webhooks
    app.state.uploads = asyncio.Semaphore(settings.max_uploads)
    problems.install(app)
    for module in (batch_routes, streams, pools, dead_letters, webhook_routes, health, console):
        app.include_router(module.router)
    app.add_middleware(RequestLog)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    """Return OpenAPI 3.1 without the answers that FastAPI adds and we never give."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        for operations in schema["paths"].values():
            for operation in operations.values():
                if "HTTPValidationError" in str(operation["responses"].get("422")):
                    del operation["responses"]["422"]  # BAD_REQUEST is 400
        schemas = schema["components"]["schemas"]
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        schemas["Problem"] = Problem.model_json_schema()
        app.openapi_schema = schema
    return app.openapi_schema


async def _keep_house(gateway: Gateway) -> None:
    """Remove abandoned uploads and batches past their retention, a few at a time."""
    while True:
        try:
            await run_in_threadpool(tidy, gateway)
        except Error as error:
            LOG.warning("housekeeping is tried again: %s", error.code)
        await asyncio.sleep(SWEEP_SECONDS)


def tidy(gateway: Gateway) -> tuple[int, int]:
    """Remove what nobody needs; return how many abandoned uploads and old batches went."""
    now = gateway.now()
    with gateway.store.transaction() as connection:
        swept = staging.sweep(connection, now)
        forgotten = batches.forget_ended(connection, now - gateway.settings.retention_s)
    if swept or forgotten:
        LOG.info("swept uploads=%d batches=%d", swept, forgotten)
    return swept, forgotten
