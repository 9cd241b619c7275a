"""Batches: finding, listing, moving between states, quotas. A staged upload is never found here."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, func, select, update

from ....wire.errors import DeliveryError
from . import events
from .models import ACTIVE, ENDED, JOB_ENDS, BatchState, batches, statements

#: The column that keeps when a batch reached a state.
TIMES: Final[dict[BatchState, str]] = {
    state: f"{state}_at"
    for state in (
        "in_progress",
        "finalizing",
        "completed",
        "failed",
        "expired",
        "cancelling",
        "cancelled",
    )
}


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as the store knows it. Times are Unix seconds.

    :param id: the store's own number, never shown. :param batch_id: 16 bytes, of the sealed headers.
    :param code: why the state is ``failed``. :param counts: jobs by their end, zeros included.
    :param ended: how many jobs have ended, which is the sum of ``counts``.
    :param times: when it reached the states that it has been in.
    """

    id: int
    tenant_id: int
    batch_id: bytes
    pool: str
    state: BatchState
    code: str | None
    input_root: bytes | None
    metadata: dict[str, str]
    jobs: int
    counts: dict[str, int]
    ended: int
    packs: int
    packs_submitted: int
    bytes_stored: int
    created_at: float
    expires_at: float
    times: dict[str, float]
    request_digest: bytes | None
    seal_digest: bytes | None
    seal_asked_at: float | None
    last_reply_at: float | None

    @property
    def name(self) -> str:
        """What users call it: ``batch_`` and 32 hexadecimal digits."""
        return "batch_" + self.batch_id.hex()


def from_row(row: Row[Any]) -> Batch:
    """Return the batch of a whole row of the table."""
    value = row._mapping
    return Batch(
        id=value["id"],
        tenant_id=value["tenant_id"],
        batch_id=bytes(value["batch_id"]),
        pool=value["pool"],
        state=value["state"],
        code=value["code"],
        input_root=_octets(value["input_root"]),
        metadata=json.loads(value["metadata"] or "{}"),
        jobs=value["jobs"],
        counts={end: value[end] for end in JOB_ENDS},
        ended=value["ended"],
        packs=value["packs"],
        packs_submitted=value["packs_submitted"],
        bytes_stored=value["bytes_stored"],
        created_at=value["created_at"],
        expires_at=value["expires_at"],
        times={state: value[column] for state, column in TIMES.items() if value[column] is not None},
        request_digest=_octets(value["request_digest"]),
        seal_digest=_octets(value["seal_digest"]),
        seal_asked_at=value["seal_asked_at"],
        last_reply_at=value["last_reply_at"],
    )


def _octets(value: bytes | None) -> bytes | None:
    return None if value is None else bytes(value)


_SHOWN: Final = batches.c.state != "staging"


def find(connection: Connection, tenant_id: int, batch_id: bytes) -> Batch | None:
    """Return a tenant's batch; another tenant's is not there."""
    wanted = (batches.c.tenant_id == tenant_id) & (batches.c.batch_id == batch_id) & _SHOWN
    row = connection.execute(select(batches).where(wanted)).first()
    return None if row is None else from_row(row)


def get(connection: Connection, batch: int, *, lock: bool = False) -> Batch | None:
    """Return a batch by the store's number.

    :param lock: keep other transactions from changing it until this one ends.
    """
    query = select(batches).where((batches.c.id == batch) & _SHOWN)
    row = connection.execute(query.with_for_update() if lock else query).first()
    return None if row is None else from_row(row)


def by_batch_id(connection: Connection, batch_id: bytes) -> int | None:
    """Return the store's number of the batch that sealed headers and outcomes name, whosesoever it is."""
    wanted = (batches.c.batch_id == batch_id) & _SHOWN
    return connection.execute(select(batches.c.id).where(wanted)).scalar()


def page(connection: Connection, tenant_id: int, limit: int, after: bytes | None = None) -> list[Batch]:
    """Return a tenant's batches, the newest first.

    :param after: batch id (16 bytes) of the last one of the page before.
    """
    query = select(batches).where((batches.c.tenant_id == tenant_id) & _SHOWN)
    if after is not None:
        last = select(batches.c.id).where((batches.c.tenant_id == tenant_id) & (batches.c.batch_id == after))
        query = query.where(batches.c.id < last.scalar_subquery())
    rows = connection.execute(query.order_by(batches.c.id.desc()).limit(limit))
    return [from_row(row) for row in rows]


def by_key(connection: Connection, tenant_id: int, key: str) -> Batch | None:
    """Return the accepted batch of an idempotency key."""
    wanted = (batches.c.tenant_id == tenant_id) & (batches.c.idempotency_key == key) & _SHOWN
    row = connection.execute(select(batches).where(wanted)).first()
    return None if row is None else from_row(row)


def move(
    connection: Connection,
    batch: int,
    state: BatchState,
    now: float,
    *,
    of: Collection[BatchState] = ACTIVE,
    code: str | None = None,
    event: str | None = None,
) -> bool:
    """Put a batch into a state if it is in one ``of`` those; return whether this call did.

    :param code: why, where the state is ``failed``.
    :param event: type of the event to leave in the outbox, e.g. ``batch.completed``.
    """
    change: dict[str, object] = {"state": state, TIMES[state]: now}
    if code is not None:
        change["code"] = code
    wanted = (batches.c.id == batch) & batches.c.state.in_(of)
    changed = connection.execute(
        update(batches).where(wanted).values(change).returning(batches.c.tenant_id)
    ).first()
    if changed is not None and event is not None:
        events.add(connection, changed.tenant_id, event, now, batch=batch)
    return changed is not None


def cancel(connection: Connection, tenant_id: int, batch_id: bytes, now: float) -> Batch | None:
    """Ask for a batch's end; harmless when that was asked for before. None: there is no such batch.

    The relay finds ``batch.cancelling`` in the outbox and writes the marker that workers obey.

    :raises DeliveryError: ``BATCH_ENDED``.
    """
    batch = find(connection, tenant_id, batch_id)
    if batch is None or batch.state in ("cancelling", "cancelled"):
        return batch
    if not move(
        connection,
        batch.id,
        "cancelling",
        now,
        of=("validating", "in_progress"),
        event="batch.cancelling",
    ):
        raise DeliveryError("BATCH_ENDED", "every job of this batch has ended", retriable=False)
    return find(connection, tenant_id, batch_id)


def delete(connection: Connection, tenant_id: int, batch_id: bytes) -> bool:
    """Remove an ended batch with all its rows; return False where there is none.

    :raises DeliveryError: ``BATCH_ACTIVE``: cancel it first.
    """
    batch = find(connection, tenant_id, batch_id)
    if batch is None:
        return False
    wanted = (batches.c.id == batch.id) & batches.c.state.in_(ENDED)
    if connection.execute(batches.delete().where(wanted)).rowcount != 1:
        raise DeliveryError("BATCH_ACTIVE", "the batch has not ended: cancel it first", retriable=False)
    return True


@dataclass(frozen=True, slots=True)
class Usage:
    """What counts against a tenant's quotas.

    :param jobs: accepted and not ended. :param stored: bytes of packs and replies, uploads included.
    """

    jobs: int
    stored: int


def usage(connection: Connection, tenant_id: int) -> Usage:
    """Return what a tenant has in flight and in store."""
    in_flight = func.sum(batches.c.jobs - batches.c.ended).filter(batches.c.state.in_(ACTIVE))
    stored = func.sum(batches.c.bytes_stored)
    row = connection.execute(select(in_flight, stored).where(batches.c.tenant_id == tenant_id)).one()
    return Usage(int(row[0] or 0), int(row[1] or 0))


def forget_ended(connection: Connection, before: float, limit: int = 20) -> int:
    """Remove batches that ended before a time (Unix seconds), at most ``limit``; return how many."""
    ended_at = func.coalesce(
        batches.c.completed_at, batches.c.cancelled_at, batches.c.expired_at, batches.c.failed_at
    )
    old = select(batches.c.id).where(batches.c.state.in_(ENDED) & (ended_at < before)).limit(limit)
    return connection.execute(batches.delete().where(batches.c.id.in_(old))).rowcount


def keep_statement(connection: Connection, batch: int, statement: bytes, now: float) -> None:
    """Store what a worker signed for a batch; the first statement stays."""
    if statement_of(connection, batch) is None:
        connection.execute(statements.insert().values(batch=batch, data=statement, created_at=now))


def statement_of(connection: Connection, batch: int) -> bytes | None:
    """Return a batch's statement (COSE_Sign1) or None."""
    return _octets(connection.execute(select(statements.c.data).where(statements.c.batch == batch)).scalar())
