"""The transactional outbox: what happened, written with it, done by a relay afterwards at least once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, or_, select, update

from .models import events

MAX_CLAIM: Final = 500


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened.

    :param type: e.g. ``batch.cancelling``. :param batch: the store's number of a batch.
    :param index: of a job in it. :param data: public values only. :param attempts: claims so far.
    """

    id: int
    tenant_id: int
    type: str
    batch: int | None
    index: int | None
    data: dict[str, object]
    created_at: float
    attempts: int


def add(
    connection: Connection,
    tenant_id: int,
    kind: str,
    now: float,
    *,
    batch: int | None = None,
    index: int | None = None,
    data: Mapping[str, object] | None = None,
) -> None:
    """Leave an event in the outbox, in the transaction of what happened."""
    add_many(
        connection,
        [
            {
                "tenant_id": tenant_id,
                "type": kind,
                "batch": batch,
                "index": index,
                "data": None if data is None else json.dumps(dict(data)),
                "created_at": now,
            }
        ],
    )


def add_many(connection: Connection, rows: Sequence[Mapping[str, object]]) -> None:
    """Leave many events at once, as rows of the table."""
    if rows:
        connection.execute(events.insert(), [dict(row) for row in rows])


def claim(
    connection: Connection, now: float, lease_s: float, *, limit: int = MAX_CLAIM, kinds: Sequence[str] = ()
) -> list[Event]:
    """Take the oldest events that nobody works on; they come again unless done within ``lease_s`` seconds.

    :param kinds: types to take; all by default.
    """
    free = or_(events.c.lease_until.is_(None), events.c.lease_until < now)
    query = select(events.c.id).where(events.c.done_at.is_(None) & free)
    if kinds:
        query = query.where(events.c.type.in_(kinds))
    query = query.order_by(events.c.id).limit(limit).with_for_update(skip_locked=True)
    ids = list(connection.execute(query).scalars())
    if not ids:
        return []
    taken = (
        update(events)
        .where(events.c.id.in_(ids))
        .values(lease_until=now + lease_s, attempts=events.c.attempts + 1)
        .returning(
            events.c.id,
            events.c.tenant_id,
            events.c.type,
            events.c.batch,
            events.c.index,
            events.c.data,
            events.c.created_at,
            events.c.attempts,
        )
    )
    found = [
        Event(row[0], row[1], row[2], row[3], row[4], json.loads(row[5] or "{}"), row[6], row[7])
        for row in connection.execute(taken)
    ]
    return sorted(found, key=lambda item: item.id)


def done(connection: Connection, ids: Sequence[int], now: float) -> None:
    """Say that events need no more work."""
    if ids:
        connection.execute(update(events).where(events.c.id.in_(ids)).values(done_at=now, lease_until=None))


def forget_done(connection: Connection, before: float) -> int:
    """Remove events that were done before a time (Unix seconds); return how many."""
    return connection.execute(events.delete().where(events.c.done_at < before)).rowcount
