"""Brings a store's tables to the form that this version works with, through alembic."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from ....wire.errors import ConfigurationError
from . import identity
from .engine import Store

_SCRIPTS: Final = Path(__file__).parent / "migrations"
#: Any number will do that no other program locks in the same database (PostgreSQL, pg_advisory_xact_lock).
_LOCK: Final = 0x65_6D_6C_67


def migrate(store: Store) -> bool:
    """Bring the tables to this version's form in one transaction; return whether there was anything to do.

    Several processes may call it at once; each waits for the one before it.

    :raises DeliveryError: ``STORE_UNAVAILABLE``.
    :raises ConfigurationError: ``STORE_NEWER``: a later version has changed the tables already.
    """
    with store.transaction() as connection:
        if not store.is_sqlite:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
        config = _config(connection)
        behind = _behind(connection, config)
        if behind:
            command.upgrade(config, "head")
        identity.ensure(connection)
    return behind


def check_migrated(store: Store) -> None:
    """Return when the tables are those of this version.

    :raises DeliveryError: ``STORE_UNAVAILABLE``.
    :raises ConfigurationError: ``STORE_NOT_MIGRATED`` or ``STORE_NEWER``.
    """
    with store.reading() as connection:
        if _behind(connection, _config(connection)):
            raise ConfigurationError(
                "STORE_NOT_MIGRATED",
                "the store's tables are of an older version: run ephemeralml gateway migrate",
            )


def _behind(connection: Connection, config: Config) -> bool:
    scripts = ScriptDirectory.from_config(config)
    found = MigrationContext.configure(connection).get_current_revision()
    if found is not None and found not in {script.revision for script in scripts.walk_revisions()}:
        raise ConfigurationError(
            "STORE_NEWER", "a later version of this program has changed the store's tables"
        )
    return found != scripts.get_current_head()


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
