"""Deliveries: one for each event and endpoint, due until delivered or given up."""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

from sqlalchemy import Connection, Row, or_, select, update

from ..store.webhook_tables import DeliveryState, webhook_endpoints
from ..store.webhook_tables import webhook_deliveries as table
from .endpoints import Endpoint

STATES: Final[tuple[str, ...]] = get_args(DeliveryState)


@dataclass(frozen=True, slots=True)
class Delivery:
    """An event on its way to an endpoint. Times are Unix seconds.

    :param id: the store's own number, never shown. :param endpoint: the store's number of one.
    :param batch: the store's number of one. :param index: of a job in it. :param data: public values only.
    :param attempts: finished so far. :param next_at: when it is due. :param last_status: of HTTP, 0: none.
    """

    id: int
    message_id: bytes
    endpoint: int
    type: str
    batch: int | None
    index: int | None
    data: dict[str, object]
    happened_at: float
    state: DeliveryState
    attempts: int
    next_at: float | None
    last_at: float | None
    last_status: int | None
    last_code: str | None
    ended_at: float | None

    @property
    def name(self) -> str:
        """What is sent as ``webhook-id``: ``msg_`` and 32 hexadecimal digits."""
        return "msg_" + self.message_id.hex()


_COLUMNS: Final = tuple(column for column in table.c if column.name != "lease_until")


def _of(row: Row[Any]) -> Delivery:
    value = dict(row._mapping)
    value["message_id"], value["data"] = bytes(value["message_id"]), json.loads(value["data"] or "{}")
    return Delivery(**value)


def row(
    endpoint: Endpoint,
    kind: str,
    now: float,
    *,
    batch: int | None = None,
    index: int | None = None,
    data: Mapping[str, object] | None = None,
    happened_at: float | None = None,
) -> dict[str, object]:
    """Return a delivery as a row of the table, due at once."""
    return {
        "message_id": secrets.token_bytes(16),
        "endpoint": endpoint.id,
        "type": kind,
        "batch": batch,
        "index": index,
        "data": json.dumps(dict(data)) if data else None,
        "happened_at": now if happened_at is None else happened_at,
        "state": "pending",
        "attempts": 0,
        "next_at": now,
    }


def add(connection: Connection, rows: Sequence[Mapping[str, object]]) -> None:
    """Make deliveries."""
    if rows:
        connection.execute(table.insert(), [dict(each) for each in rows])


def claim(
    connection: Connection, now: float, lease_s: float, *, limit: int, busy: Collection[int] = ()
) -> list[Delivery]:
    """Take deliveries that are due; they are due again unless they ended within ``lease_s`` seconds.

    :param busy: endpoints that have enough in work.
    """
    free = or_(table.c.lease_until.is_(None), table.c.lease_until < now)
    due = (table.c.state == "pending") & (table.c.next_at <= now) & free & webhook_endpoints.c.enabled
    if busy:
        due &= table.c.endpoint.not_in(sorted(busy))
    query = (
        select(table.c.id)
        .join(webhook_endpoints, webhook_endpoints.c.id == table.c.endpoint)
        .where(due)
        .order_by(table.c.next_at, table.c.id)
        .limit(limit)
        .with_for_update(of=table, skip_locked=True)
    )
    ids = list(connection.execute(query).scalars())
    if not ids:
        return []
    connection.execute(update(table).where(table.c.id.in_(ids)).values(lease_until=now + lease_s))
    rows = connection.execute(select(*_COLUMNS).where(table.c.id.in_(ids)).order_by(table.c.next_at))
    return [_of(each) for each in rows]


def release(connection: Connection, ids: Sequence[int]) -> None:
    """Give claimed deliveries back at once: nothing was sent."""
    if ids:
        connection.execute(update(table).where(table.c.id.in_(ids)).values(lease_until=None))


def attempted(
    connection: Connection,
    delivery: Delivery,
    now: float,
    *,
    status: int,
    code: str,
    next_at: float | None,
) -> None:
    """Write an attempt down.

    :param code: why it failed, "" for a success. :param next_at: None: this was the last one.
    """
    state: DeliveryState = "delivered" if not code else "failed" if next_at is None else "pending"
    values: dict[str, object] = {
        "state": state,
        "attempts": delivery.attempts + 1,
        "next_at": next_at if state == "pending" else None,
        "lease_until": None,
        "last_at": now,
        "last_status": status,
        "last_code": code or None,
        "ended_at": None if state == "pending" else now,
    }
    connection.execute(update(table).where(table.c.id == delivery.id).values(values))


def page(
    connection: Connection,
    endpoint: Endpoint,
    limit: int,
    after: bytes | None = None,
    state: str | None = None,
) -> list[Delivery]:
    """Return an endpoint's deliveries, the newest first.

    :param after: message id (16 bytes) of the last one of the page before.
    """
    query = select(*_COLUMNS).where(table.c.endpoint == endpoint.id)
    if after is not None:
        last = select(table.c.id).where((table.c.endpoint == endpoint.id) & (table.c.message_id == after))
        query = query.where(table.c.id < last.scalar_subquery())
    if state is not None:
        query = query.where(table.c.state == state)
    return [_of(each) for each in connection.execute(query.order_by(table.c.id.desc()).limit(limit))]


def find(connection: Connection, endpoint: Endpoint, message_id: bytes) -> Delivery | None:
    """Return a delivery of an endpoint."""
    wanted = (table.c.endpoint == endpoint.id) & (table.c.message_id == message_id)
    found = connection.execute(select(*_COLUMNS).where(wanted)).first()
    return None if found is None else _of(found)


def replay(
    connection: Connection, endpoint: Endpoint, now: float, *, message_id: bytes | None, since: float
) -> int:
    """Make ended deliveries due again under their own ids; return how many.

    :param message_id: this one, whatever became of it; None: all that were given up.
    :param since: only events that happened from then on, Unix seconds.
    """
    wanted = (table.c.endpoint == endpoint.id) & (table.c.happened_at >= since)
    if message_id is None:
        wanted &= table.c.state == "failed"
    else:
        wanted &= table.c.message_id == message_id
    again = {"state": "pending", "attempts": 0, "next_at": now, "lease_until": None, "ended_at": None}
    return connection.execute(update(table).where(wanted).values(again)).rowcount


def forget_ended(connection: Connection, before: float, limit: int = 5000) -> int:
    """Remove deliveries that ended before a time (Unix seconds), at most ``limit``; return how many."""
    old = select(table.c.id).where(table.c.state.in_(("delivered", "failed")) & (table.c.ended_at < before))
    return connection.execute(table.delete().where(table.c.id.in_(old.limit(limit)))).rowcount
