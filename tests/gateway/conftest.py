"""Stores of both kinds, migrated once and copied for each test; a gateway in this process."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import inspect

from ephemeralml.broker_config.blobs import LocalBlobStore
from ephemeralml.producer.gateway.api import make_app
from ephemeralml.producer.gateway.settings import GatewaySettings
from ephemeralml.producer.gateway.store import Store, identity, migrate, tenants
from ephemeralml.producer.gateway.webhooks.keys import Master
from ephemeralml.producer.gateway.webhooks.settings import WebhookSettings

from ..servers import postgres
from .uploads import NOW, SealedBatch


@pytest.fixture(scope="session")
def server() -> Iterator[postgres.Postgres]:
    """A PostgreSQL of these tests alone."""
    with postgres.running() as running:
        yield running


@pytest.fixture(scope="session")
def pg_store(server: postgres.Postgres) -> Iterator[Store]:
    """A migrated database that tests use one after another; making one for each costs ten times as much."""
    store = Store(server.database())
    migrate(store)
    yield store
    store.close()


def empty(store: Store) -> None:
    """Make a store as it was after its migration."""
    kept = {"alembic_version", "identity"}
    with store.transaction() as connection:
        connection.exec_driver_sql("SET LOCAL lock_timeout = '20s'")
        names = [f'"{name}"' for name in inspect(connection).get_table_names() if name not in kept]
        connection.exec_driver_sql(f"TRUNCATE {', '.join(names)} RESTART IDENTITY CASCADE")


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated file that others are copied from."""
    path = tmp_path_factory.mktemp("store") / "gateway.db"
    store = Store(f"sqlite:///{path}")
    migrate(store)
    store.close()
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a fresh, migrated store of each kind."""
    if request.param == "sqlite":
        path = tmp_path / "gateway.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
        return
    shared: Store = request.getfixturevalue("pg_store")
    yield shared.url.render_as_string(hide_password=False)
    empty(shared)


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    """A fresh, migrated store of each kind."""
    opened = Store(store_url)
    yield opened
    opened.close()


class Clock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        """Return the time, Unix seconds."""
        return self.now


@dataclass
class Site:
    """A gateway in this process, with two tenants."""

    store: Store
    blobs: LocalBlobStore
    clock: Clock
    reply_to: str
    keys: dict[str, str]
    running: ExitStack

    @cached_property
    def client(self) -> TestClient:
        """A client of the API, which is made when it is first asked for: not all tests need it."""
        webhooks = (WebhookSettings(), Master(bytes(32)))
        app = make_app(self.store, self.blobs, GatewaySettings(), now=self.clock, webhooks=webhooks)
        return self.running.enter_context(TestClient(app, raise_server_exceptions=False))

    def auth(self, name: str = "acme") -> dict[str, str]:
        """Return the headers of a tenant's requests."""
        return {"Authorization": f"Bearer {self.keys[name]}"}

    def batch(self, jobs: int = 5, **changes: object) -> SealedBatch:
        """Return a batch for this gateway."""
        return SealedBatch(self.reply_to, jobs, **changes)  # type: ignore[arg-type]

    def upload(self, batch: SealedBatch, tenant: str = "acme") -> str:
        """Upload a batch and return its name."""
        headers = {"Content-Type": "application/cbor-seq", **self.auth(tenant)}
        answer = self.client.post("/v1/batches", content=batch.cbor(), headers=headers)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])


@contextmanager
def make_site(store: Store, folder: Path) -> Iterator[Site]:
    """Yield a gateway over a store."""
    with store.transaction() as connection:
        keys = {
            name: tenants.make_key(
                connection, tenants.ensure(connection, name, NOW), "test", ["read", "write"], NOW
            )
            for name in ("acme", "umbrella")
        }
        reply_to = identity.reply_to(connection)
    with ExitStack() as running:
        yield Site(store, LocalBlobStore(folder / "blobs"), Clock(), reply_to, keys, running)


@pytest.fixture
def site(store: Store, tmp_path: Path) -> Iterator[Site]:
    """A gateway on each kind of store."""
    with make_site(store, tmp_path) as made:
        yield made


@pytest.fixture
def lite(sqlite_template: Path, tmp_path: Path) -> Iterator[Site]:
    """A gateway on SQLite alone, for what does not depend on the store."""
    path = tmp_path / "gateway.db"
    shutil.copy(sqlite_template, path)
    store = Store(f"sqlite:///{path}")
    with make_site(store, tmp_path) as made:
        yield made
    store.close()
