"""Runs the API in uvicorn until a signal ends it."""

from __future__ import annotations

import logging
import signal
from contextlib import closing
from typing import Final

import uvicorn
from fastapi import FastAPI

from ...broker_config.blobs import make_blob_store
from ...broker_config.settings import BrokerSettings
from ...wire.errors import DeliveryError, Error
from .api import make_app
from .settings import GatewaySettings
from .store import Store, check_migrated, migrate
from .webhooks.settings import webhook_settings

#: Seconds for requests in work to end after SIGTERM.
GRACE_SECONDS: Final = 20


def open_store(settings: GatewaySettings, broker: BrokerSettings) -> Store:
    """Open the store that settings name. A SQLite file is made and migrated; PostgreSQL must be.

    :raises ConfigurationError: ``BAD_STORE_URL``, ``STORE_NOT_MIGRATED`` or ``STORE_NEWER``.
    :raises DeliveryError: ``STORE_UNAVAILABLE``.
    """
    if settings.store_url is None:
        broker.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    store = Store(settings.store(broker.state_dir))
    try:
        if store.is_sqlite:
            migrate(store)
        else:
            check_migrated(store)
    except Error:
        store.close()
        raise
    return store


def serve(settings: GatewaySettings, broker: BrokerSettings) -> None:
    """Serve until SIGTERM or SIGINT; requests in work are finished within 20 seconds.

    :raises Error: as :func:`open_store`. :raises DeliveryError: ``ADDRESS_IN_USE``.
    """
    with closing(open_store(settings, broker)) as store:
        webhooks = webhook_settings()
        master = webhooks.master(broker.state_dir, shared=not store.is_sqlite)
        keyed = None if master is None else (webhooks, master)
        _run(make_app(store, make_blob_store(broker), settings, webhooks=keyed), settings)


def _run(app: FastAPI, settings: GatewaySettings) -> None:
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,  # ours names ids only
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    server = uvicorn.Server(config)
    # Once it has ended in order, uvicorn raises the signal again for whoever handled it before.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    try:
        server.run()
    except SystemExit:
        raise DeliveryError("ADDRESS_IN_USE", "the gateway cannot listen there: another port?") from None
    if not server.started:
        raise DeliveryError("ADDRESS_IN_USE", "the gateway cannot listen there: another port?")


def log_to_stderr() -> None:
    """Log to standard error; what libraries say from warnings on."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for name in ("uvicorn", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
