"""Endpoints: where a tenant wants its events, which of them, and how they are signed."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from sqlalchemy import Connection, Row, func, select, update

from ....wire.errors import ConfigurationError, DeliveryError
from ..store import events
from ..store.webhook_tables import webhook_endpoints as table
from .keys import Master, Signing

#: What a tenant may subscribe to.
EVENTS: Final = (
    "job.completed",
    "job.failed",
    "batch.completed",
    "batch.expired",
    "batch.cancelled",
)
#: What an endpoint gets unasked: trials, and the notice that another endpoint was disabled.
TEST: Final = "webhook.test"
DISABLED: Final = "webhook.disabled"
MAX_DESCRIPTION: Final = 256


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where events go. Times are Unix seconds.

    :param id: the store's own number, never shown. :param key_version: of its key, counting from 1.
    :param old_key_until: until then the version before signs too.
    :param key_check: see :meth:`.keys.Master.is_of`.
    :param failing_since: no attempt has succeeded since then.
    """

    id: int
    tenant_id: int
    endpoint_id: bytes
    url: str
    description: str
    events: tuple[str, ...]
    signing: Signing
    key_version: int
    old_key_until: float | None
    key_check: bytes
    enabled: bool
    disabled_reason: str | None
    disabled_at: float | None
    failing_since: float | None
    created_at: float

    @property
    def name(self) -> str:
        """What users call it: ``we_`` and 32 hexadecimal digits."""
        return "we_" + self.endpoint_id.hex()


def _of(row: Row[Any]) -> Endpoint:
    value = dict(row._mapping)
    value["endpoint_id"], value["key_check"] = bytes(value["endpoint_id"]), bytes(value["key_check"])
    value["events"] = tuple(value["events"].split())
    return Endpoint(**value)


def check_events(wanted: Collection[str]) -> tuple[str, ...]:
    """Return event types in their own order.

    :raises ConfigurationError: ``BAD_EVENTS``.
    """
    if not wanted or not set(wanted) <= set(EVENTS):
        raise ConfigurationError("BAD_EVENTS", f"events are of {', '.join(EVENTS)}, at least one")
    return tuple(name for name in EVENTS if name in wanted)


def create(
    connection: Connection,
    tenant_id: int,
    url: str,
    master: Master,
    now: float,
    *,
    wanted: Collection[str],
    signing: Signing = "v1",
    description: str = "",
    limit: int,
) -> Endpoint:
    """Make an endpoint; its address must have been checked (:func:`.guard.read_url`).

    :raises ConfigurationError: ``BAD_EVENTS``. :raises DeliveryError: ``QUOTA_WEBHOOKS``.
    """
    count = select(func.count()).select_from(table).where(table.c.tenant_id == tenant_id)
    if int(connection.execute(count).scalar_one()) >= limit:
        raise DeliveryError("QUOTA_WEBHOOKS", "the tenant has as many webhooks as it may", retriable=False)
    endpoint_id = secrets.token_bytes(16)
    row: dict[str, object] = {
        "tenant_id": tenant_id,
        "endpoint_id": endpoint_id,
        "url": url,
        "description": description[:MAX_DESCRIPTION],
        "events": " ".join(check_events(wanted)),
        "signing": signing,
        "key_version": 1,
        "key_check": master.check(endpoint_id),
        "enabled": True,
        "created_at": now,
    }
    found = connection.execute(table.insert().values(row).returning(table.c.id)).scalar_one()
    return cast("Endpoint", get(connection, int(found)))


def get(connection: Connection, number: int) -> Endpoint | None:
    """Return an endpoint by the store's number."""
    row = connection.execute(select(table).where(table.c.id == number)).first()
    return None if row is None else _of(row)


def find(connection: Connection, tenant_id: int, endpoint_id: bytes) -> Endpoint | None:
    """Return a tenant's endpoint; another tenant's is not there."""
    wanted = (table.c.tenant_id == tenant_id) & (table.c.endpoint_id == endpoint_id)
    row = connection.execute(select(table).where(wanted)).first()
    return None if row is None else _of(row)


def named(connection: Connection, endpoint_id: bytes) -> Endpoint | None:
    """Return an endpoint of whichever tenant: for operators."""
    row = connection.execute(select(table).where(table.c.endpoint_id == endpoint_id)).first()
    return None if row is None else _of(row)


def of_tenant(connection: Connection, tenant_id: int) -> list[Endpoint]:
    """Return a tenant's endpoints, the oldest first."""
    rows = connection.execute(select(table).where(table.c.tenant_id == tenant_id).order_by(table.c.id))
    return [_of(row) for row in rows]


def of_tenants(connection: Connection, tenant_ids: Collection[int]) -> list[Endpoint]:
    """Return the enabled endpoints of tenants."""
    wanted = table.c.tenant_id.in_(sorted(tenant_ids)) & table.c.enabled
    return [_of(row) for row in connection.execute(select(table).where(wanted).order_by(table.c.id))]


def wants(connection: Connection, tenant_id: int) -> frozenset[str]:
    """Return the event types that anybody of a tenant listens to."""
    return frozenset(name for each in of_tenants(connection, [tenant_id]) for name in each.events)


def change(connection: Connection, endpoint: Endpoint, values: dict[str, object]) -> None:
    """Change columns of an endpoint; enabling it anew forgets why it was disabled."""
    if values.get("enabled") is True:
        values |= {"disabled_reason": None, "disabled_at": None, "failing_since": None}
    if values:
        connection.execute(update(table).where(table.c.id == endpoint.id).values(values))


def rotate(connection: Connection, endpoint: Endpoint, now: float, keep_s: float) -> Endpoint:
    """Give an endpoint its next key; the one before signs too for ``keep_s`` seconds."""
    values = {"key_version": table.c.key_version + 1, "old_key_until": now + keep_s}
    connection.execute(update(table).where(table.c.id == endpoint.id).values(values))
    return cast("Endpoint", get(connection, endpoint.id))


def delete(connection: Connection, endpoint: Endpoint) -> None:
    """Remove an endpoint with its deliveries."""
    connection.execute(table.delete().where(table.c.id == endpoint.id))


def disable(connection: Connection, endpoint: Endpoint, reason: str, now: float) -> bool:
    """Stop sending to an endpoint and tell the tenant's others; return whether this call did.

    :param reason: a stable code.
    """
    wanted = (table.c.id == endpoint.id) & table.c.enabled
    values = {"enabled": False, "disabled_reason": reason, "disabled_at": now}
    if connection.execute(update(table).where(wanted).values(values)).rowcount != 1:
        return False
    data = {"endpoint": endpoint.name, "reason": reason}
    events.add(connection, endpoint.tenant_id, DISABLED, now, data=data)
    return True


def succeeded(connection: Connection, numbers: Sequence[int]) -> None:
    """Note that endpoints have taken something."""
    failing = table.c.id.in_(sorted(set(numbers))) & table.c.failing_since.is_not(None)
    connection.execute(update(table).where(failing).values(failing_since=None))


def failed(connection: Connection, number: int, now: float) -> None:
    """Note that an endpoint has not taken something."""
    first = (table.c.id == number) & table.c.failing_since.is_(None)
    connection.execute(update(table).where(first).values(failing_since=now))
