"""Replies: stored once per job, numbered in order of arrival, read again from any point.

A batch's ends are numbered from 0 as they arrive; these ordinals have no gaps and never change, because
each is given out under the lock of the batch's row. A reader who has seen the first n ends asks for
those after n.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, Connection, func, select, update

from ....wire.pack import SealedReply, encode_replies
from . import bulk
from .models import ACTIVE, JobEnd, batches, jobs, packs, replies

#: Jobs looked up with one statement.
_LOOKUP: Final = 500


@dataclass(frozen=True, slots=True)
class Reply:
    """One job's reply with what its outcome statement says; the store takes it at its word.

    :param index: of the job in its batch. :param code: empty for a success.
    """

    index: int
    status: JobEnd
    code: str
    sealed: SealedReply


@dataclass(frozen=True, slots=True)
class StoredPack:
    """A pack of replies: the ends with the ordinals from ``first`` on (``data``: see wire.pack).

    :param indexes: of their jobs, in the same order.
    """

    first: int
    indexes: tuple[int, ...]
    data: bytes


def record(connection: Connection, batch: int, arrived: Sequence[Reply], now: float) -> list[Reply]:
    """Store the replies to jobs of a batch that have not ended yet; return those, in their order.

    The first reply to a job stays. Replies to a batch that has ended, and such as name a job that
    the batch does not have, are left out: what the queue brings is nobody's word.

    :param batch: the store's number. :param arrived: at most 1024.
    """
    this = batches.c.id == batch
    columns = (batches.c.pool, batches.c.state, batches.c.ended)
    head = connection.execute(select(*columns).where(this).with_for_update()).first()
    if head is None or head.state not in ACTIVE:
        return []
    places = _open_jobs(connection, batch, {reply.index for reply in arrived})
    fresh: dict[int, Reply] = {}
    for reply in arrived:
        if places.get(reply.index, (b"", 0))[0] == reply.sealed.job_id:
            fresh.setdefault(reply.index, reply)
    new = list(fresh.values())
    if new:
        data = encode_replies(head.pool, [reply.sealed for reply in new])
        _store(connection, batch, head.ended, new, data, now)
        freed = _count_packs(connection, batch, Counter(places[reply.index][1] for reply in new))
        ends = Counter(reply.status for reply in new)
        change: dict[str, object] = {end: batches.c[end] + count for end, count in ends.items()}
        change["ended"] = batches.c.ended + len(new)
        change["bytes_stored"] = batches.c.bytes_stored + (len(data) - freed)
        connection.execute(update(batches).where(this).values(last_reply_at=now, **change))
    return new


def _open_jobs(connection: Connection, batch: int, indexes: set[int]) -> dict[int, tuple[bytes, int]]:
    """Return job id and pack number of those that have not ended, by index."""
    found: dict[int, tuple[bytes, int]] = {}
    wanted = sorted(indexes)
    for start in range(0, len(wanted), _LOOKUP):
        query = select(jobs.c.index, jobs.c.job_id, jobs.c.pack).where(
            (jobs.c.batch == batch) & _among(wanted[start : start + _LOOKUP]) & jobs.c.status.is_(None)
        )
        found |= {row[0]: (bytes(row[1]), row[2]) for row in connection.execute(query)}
    return found


def _among(indexes: Sequence[int]) -> ColumnElement[bool]:
    """Match jobs by index. The bounds are for PostgreSQL, which without them reads the whole batch
    as long as it has no statistics about a batch that has just come."""
    return jobs.c.index.between(min(indexes), max(indexes)) & jobs.c.index.in_(indexes)


def _store(
    connection: Connection, batch: int, first: int, new: Sequence[Reply], data: bytes, now: float
) -> None:
    row = {"batch": batch, "first": first, "count": len(new), "size": len(data), "data": data}
    row["indexes"] = struct.pack(f">{len(new)}H", *(reply.index for reply in new))
    connection.execute(replies.insert().values(arrived_at=now, **row))
    ends = [
        (reply.index, reply.status, reply.code or None, ordinal) for ordinal, reply in enumerate(new, first)
    ]
    bulk.end_jobs(connection, batch, ends, now)


def _count_packs(connection: Connection, batch: int, ended: Counter[int]) -> int:
    """Count ended jobs in their packs; drop the bytes of packs that are done; return how many those were."""
    freed = 0
    for number, count in sorted(ended.items()):
        this = (packs.c.batch == batch) & (packs.c.number == number)
        connection.execute(update(packs).where(this).values(ended=packs.c.ended + count))
        over = this & (packs.c.ended >= packs.c.jobs) & packs.c.data.is_not(None)
        gone = connection.execute(
            update(packs).where(over).values(data=None).returning(packs.c.size)
        ).scalar()
        freed += int(gone or 0)
    return freed


def after(connection: Connection, batch: int, ordinal: int, *, max_bytes: int) -> list[StoredPack]:
    """Return the stored packs with the ends from ``ordinal`` on, in order of arrival.

    :param max_bytes: stop before a pack that would exceed it; at least one pack is returned if there is any.
    """
    last = select(func.max(replies.c.first)).where((replies.c.batch == batch) & (replies.c.first <= ordinal))
    start = connection.execute(last).scalar()
    where = (replies.c.batch == batch) & (replies.c.first >= (0 if start is None else start))
    sizes = connection.execute(
        select(replies.c.first, replies.c.count, replies.c.size).where(where).order_by(replies.c.first)
        .limit(_LOOKUP)
    )  # fmt: skip
    wanted: list[int] = []
    room = max_bytes
    for row in sizes.all():
        if row[0] + row[1] <= ordinal:
            continue
        if wanted and row.size > room:
            break
        wanted.append(row.first)
        room -= row.size
    if not wanted:
        return []
    columns = (replies.c.first, replies.c.count, replies.c.indexes, replies.c.data)
    found = (replies.c.batch == batch) & replies.c.first.between(wanted[0], wanted[-1])
    rows = connection.execute(select(*columns).where(found).order_by(replies.c.first))
    return [StoredPack(row[0], struct.unpack(f">{row[1]}H", row[2]), bytes(row[3])) for row in rows]


@dataclass(frozen=True, slots=True)
class EndedJob:
    """How a job ended, as far as its outcome says so, and where its reply stands in order of arrival."""

    index: int
    custom_id: str | None
    status: JobEnd
    code: str
    ordinal: int
    ended_at: float


def ends(connection: Connection, batch: int, indexes: Sequence[int]) -> list[EndedJob]:
    """Return the ends of jobs by their indexes, in order of arrival."""
    columns = (jobs.c.index, jobs.c.custom_id, jobs.c.status, jobs.c.code, jobs.c.ordinal, jobs.c.ended_at)
    ended = (jobs.c.batch == batch) & jobs.c.ordinal.is_not(None)
    found: list[EndedJob] = []
    for start in range(0, len(indexes), _LOOKUP):
        some = ended & _among(indexes[start : start + _LOOKUP])
        rows = connection.execute(select(*columns).where(some))
        found += [EndedJob(row[0], row[1], row[2], row[3] or "", row[4], row[5]) for row in rows]
    return sorted(found, key=lambda job: job.ordinal)


def place(connection: Connection, batch: int, index: int) -> int | None:
    """Return the ordinal of a job that has ended, which :func:`after` finds its reply by."""
    where = (jobs.c.batch == batch) & (jobs.c.index == index)
    return connection.execute(select(jobs.c.ordinal).where(where)).scalar()
