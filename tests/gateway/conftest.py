"""Stores of both kinds, migrated once and copied for each test; a gateway in this process."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from ephemeralml.broker_config.blobs import LocalBlobStore
from ephemeralml.producer.gateway.api import make_app
from ephemeralml.producer.gateway.settings import GatewaySettings
from ephemeralml.producer.gateway.store import Store, identity, migrate, tenants

from ..servers import postgres
from .uploads import NOW, SealedBatch


@pytest.fixture(scope="session")
def server() -> Iterator[postgres.Postgres]:
    """A PostgreSQL of these tests alone."""
    with postgres.running() as running:
        yield running


@pytest.fixture(scope="session")
def pg_template(server: postgres.Postgres) -> str:
    """A migrated database that others are copied from."""
    store = Store(server.database())
    migrate(store)
    store.close()
    assert store.url.database is not None
    return store.url.database


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated file that others are copied from."""
    path = tmp_path_factory.mktemp("store") / "gateway.db"
    store = Store(f"sqlite:///{path}")
    migrate(store)
    store.close()
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a fresh, migrated store of each kind."""
    if request.param == "sqlite":
        path = tmp_path / "gateway.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        return f"sqlite:///{path}"
    template = request.getfixturevalue("pg_template")
    server: postgres.Postgres = request.getfixturevalue("server")
    return server.database(template=template)


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
    client: TestClient
    reply_to: str
    keys: dict[str, str]

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
def make_site(store: Store, folder: Path, **settings: object) -> Iterator[Site]:
    """Yield a gateway over a store."""
    clock, blobs = Clock(), LocalBlobStore(folder / "blobs")
    with store.transaction() as connection:
        keys = {
            name: tenants.make_key(
                connection, tenants.ensure(connection, name, NOW), "test", ["read", "write"], NOW
            )
            for name in ("acme", "umbrella")
        }
        reply_to = identity.reply_to(connection)
    chosen = GatewaySettings(**settings)  # type: ignore[arg-type]
    client = TestClient(make_app(store, blobs, chosen, now=clock), raise_server_exceptions=False)
    with client:
        yield Site(store, blobs, clock, client, reply_to, keys)


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
