"""The store: one database, SQLite or PostgreSQL, and how to begin and end its transactions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from ....wire.errors import ConfigurationError, DeliveryError

#: Seconds a writer waits for another one on SQLite.
BUSY_SECONDS: Final = 30
POOL_SIZE: Final = 8
_READ: Final = "store_reads_only"


class Store:
    """A database of the gateway's. Safe for threads; open it once for each process, after any fork.

    ::

        store = Store("sqlite:////var/lib/ephemeralml/gateway.db")
        with store.transaction() as connection:
            claimed = packs.claim(connection, now, ...)

    :param url: ``sqlite:///path`` or ``postgresql://user:password@host/database``.
    :raises ConfigurationError: ``BAD_STORE_URL``; never shows the address.
    """

    def __init__(self, url: str) -> None:
        self.url = _checked(url)
        self.engine = _sqlite(self.url) if self.is_sqlite else _postgres(self.url)

    @property
    def is_sqlite(self) -> bool:
        """Whether one machine alone can use this store."""
        return self.url.get_backend_name() == "sqlite"

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Begin a transaction that writes, commit it on leaving, roll it back on any error.

        On SQLite it holds the one writer's lock from its first moment (``BEGIN IMMEDIATE``), so it never
        fails for having read before it wrote. Keep it short.

        :raises DeliveryError: ``STORE_UNAVAILABLE``; nothing was written, unless only the answer got lost.
        """
        with _reported(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Begin a transaction that only reads; it never waits for a writer.

        :raises DeliveryError: ``STORE_UNAVAILABLE``.
        """
        with _reported(), self.engine.connect().execution_options(**{_READ: True}) as connection:
            yield connection

    def close(self) -> None:
        """Close every connection that is not in use."""
        self.engine.dispose()


@contextmanager
def _reported() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        # The original's text holds statements and values; its class says what kind of trouble it is.
        kind = type(error.orig if isinstance(error, DBAPIError) else error).__name__
        raise DeliveryError("STORE_UNAVAILABLE", f"the gateway's store cannot be used: {kind}") from None


def _checked(text: str) -> URL:
    try:
        url = make_url(text)
    except ArgumentError:
        url = None
    kind = None if url is None else url.drivername
    if url is not None and kind in {"postgresql", "postgresql+psycopg"}:
        return url.set(drivername="postgresql+psycopg")
    if url is not None and kind == "sqlite" and url.database and url.database != ":memory:" and not url.query:
        return url
    raise ConfigurationError(
        "BAD_STORE_URL", "a store is sqlite:///path or postgresql://user:password@host/database"
    )


def _postgres(url: URL) -> Engine:
    return create_engine(
        url, pool_size=POOL_SIZE, max_overflow=POOL_SIZE, pool_pre_ping=True, hide_parameters=True
    )


def _sqlite(url: URL) -> Engine:
    engine = create_engine(
        url,
        connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False},
        pool_size=POOL_SIZE,
        max_overflow=POOL_SIZE,
        hide_parameters=True,
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # the driver must not begin transactions on its own
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "cache_size=-8192"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        reads = connection.get_execution_options().get(_READ, False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine
