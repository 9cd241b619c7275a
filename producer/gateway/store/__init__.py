"""The gateway's store: tenants, batches, packs, replies and the outbox, in SQLite or PostgreSQL.

The API and the relay share it; each of its modules is one table's repository, whose functions take the
connection of a transaction that the caller began::

    from ephemeralml.producer.gateway.store import Store, migrate

    store = Store("sqlite:////tmp/gateway.db")
    migrate(store)
    with store.transaction() as connection:
        ...
"""

from . import webhook_tables as _webhook_tables  # noqa: F401 - its tables belong to the same metadata
from .engine import Store
from .migrate import check_migrated, migrate

__all__ = ["Store", "check_migrated", "migrate"]
