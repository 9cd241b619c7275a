"""Packs of jobs on their way to the queue: claimed by one relay at a time, submitted, submitted again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, Connection, func, or_, select, update

from .models import ACTIVE, batches, packs

#: Together at most this many bytes of packs are claimed at once, but always one pack.
MAX_CLAIM_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class ClaimedPack:
    """A pack to put onto its pool's queue (``data``: see wire.pack), held until the lease ends.

    :param batch: the store's number. :param attempts: claims so far, this one too.
    :param expires_at: when its batch's time is up, Unix seconds.
    """

    id: int
    batch: int
    batch_id: bytes
    pool: str
    number: int
    jobs: int
    attempts: int
    expires_at: float
    data: bytes


def claim(connection: Connection, now: float, lease_s: float, *, limit: int = 64) -> list[ClaimedPack]:
    """Take packs that were never submitted, the oldest first; free again after ``lease_s`` seconds.

    Those of batches being cancelled too: a worker must sign that their jobs were cancelled.
    """
    return _claim(connection, now, lease_s, limit, packs.c.state == "ready")


def claim_unanswered(
    connection: Connection, now: float, lease_s: float, *, before: float, limit: int = 64
) -> list[ClaimedPack]:
    """Take packs that were submitted before a time (Unix seconds) and have jobs that have not ended.

    A host may drop a message; a second answer to a job counts nothing, so asking again is safe.
    """
    silent = (packs.c.submitted_at < before) & (packs.c.ended < packs.c.jobs)
    return _claim(connection, now, lease_s, limit, (packs.c.state == "submitted") & silent)


def _claim(
    connection: Connection, now: float, lease_s: float, limit: int, wanted: ColumnElement[bool]
) -> list[ClaimedPack]:
    free = or_(packs.c.lease_until.is_(None), packs.c.lease_until < now)
    active = batches.c.state.in_(ACTIVE) & (batches.c.expires_at > now)
    query = (
        select(packs.c.id, packs.c.size)
        .join(batches, batches.c.id == packs.c.batch)
        .where(wanted & free & active & packs.c.data.is_not(None))
        .order_by(packs.c.id)
        .limit(limit)
        .with_for_update(of=packs, skip_locked=True)
    )
    ids: list[int] = []
    room = MAX_CLAIM_BYTES
    for row in connection.execute(query).all():
        if ids and row.size > room:
            break
        ids.append(row.id)
        room -= row.size
    return _taken(connection, ids, now + lease_s)


def _taken(connection: Connection, ids: Sequence[int], lease_until: float) -> list[ClaimedPack]:
    if not ids:
        return []
    lease = {"lease_until": lease_until, "attempts": packs.c.attempts + 1}
    connection.execute(update(packs).where(packs.c.id.in_(ids)).values(lease))
    columns = (packs.c.id, packs.c.batch, batches.c.batch_id, batches.c.pool, packs.c.number)
    rows = connection.execute(
        select(*columns, packs.c.jobs, packs.c.attempts, batches.c.expires_at, packs.c.data)
        .join(batches, batches.c.id == packs.c.batch)
        .where(packs.c.id.in_(ids))
        .order_by(packs.c.id)
    )
    return [
        ClaimedPack(row[0], row[1], bytes(row[2]), row[3], row[4], row[5], row[6], row[7], bytes(row[8]))
        for row in rows
    ]


def submitted(connection: Connection, ids: Sequence[int], now: float) -> None:
    """Say that packs are with the broker. A batch whose first pack this is goes ``in_progress``."""
    if not ids:
        return
    mine = packs.c.id.in_(ids)
    fresh = connection.execute(
        select(packs.c.batch, func.count()).where(mine & (packs.c.state == "ready")).group_by(packs.c.batch)
    ).all()
    change = {"state": "submitted", "submitted_at": now, "lease_until": None}
    connection.execute(update(packs).where(mine).values(change))
    for batch, count in sorted((int(row[0]), int(row[1])) for row in fresh):
        this = batches.c.id == batch
        more = {"packs_submitted": batches.c.packs_submitted + count}
        connection.execute(update(batches).where(this).values(more))
        first = {"state": "in_progress", "in_progress_at": now}
        connection.execute(update(batches).where(this & (batches.c.state == "validating")).values(first))


def release(connection: Connection, ids: Sequence[int]) -> None:
    """Give claimed packs back at once: they were not submitted."""
    if ids:
        connection.execute(update(packs).where(packs.c.id.in_(ids)).values(lease_until=None))
