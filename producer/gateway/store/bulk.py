"""Rows of jobs, written many at once in the way that each database takes them fastest.

SQLite runs one prepared statement over all rows. PostgreSQL gets one statement with an array for each
column: a statement for each row costs it three times as much.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, bindparam, text, update

from .models import JobEnd, jobs

_INSERT_ARRAYS: Final = text(
    "INSERT INTO jobs (batch, pack, index, job_id, custom_id) SELECT :batch, * FROM unnest("
    "CAST(:pack AS integer[]), CAST(:index AS integer[]), CAST(:job_id AS bytea[]), "
    "CAST(:custom_id AS varchar[]))"
)
_END: Final = (
    update(jobs)
    .where((jobs.c.batch == bindparam("of")) & (jobs.c.index == bindparam("at")))
    .values(
        status=bindparam("as_status"),
        code=bindparam("as_code"),
        ordinal=bindparam("as_ordinal"),
        ended_at=bindparam("now"),
    )
)
_END_ARRAYS: Final = text(
    "UPDATE jobs SET status = ends.status, code = ends.code, ordinal = ends.ordinal, ended_at = :now "
    "FROM unnest(CAST(:at AS integer[]), CAST(:status AS varchar[]), CAST(:code AS varchar[]), "
    "CAST(:ordinal AS integer[])) AS ends(at, status, code, ordinal) "
    "WHERE jobs.batch = :of AND jobs.index = ends.at AND jobs.index BETWEEN :low AND :high"
)


def insert_jobs(
    connection: Connection, batch: int, rows: Sequence[tuple[int, int, bytes, str | None]]
) -> None:
    """Insert jobs of a batch, at least one: number of the pack, index, job id, custom id."""
    if connection.dialect.name == "postgresql":
        columns = zip(("pack", "index", "job_id", "custom_id"), zip(*rows, strict=True), strict=True)
        arrays = {name: list(values) for name, values in columns}
        connection.execute(_INSERT_ARRAYS, {"batch": batch, **arrays})
        return
    connection.execute(
        jobs.insert(),
        [
            {"batch": batch, "pack": pack, "index": index, "job_id": job_id, "custom_id": custom_id}
            for pack, index, job_id, custom_id in rows
        ],
    )


def end_jobs(
    connection: Connection, batch: int, rows: Sequence[tuple[int, JobEnd, str | None, int]], now: float
) -> None:
    """Write how jobs of a batch ended, at least one: index, status, code, ordinal."""
    if connection.dialect.name == "postgresql":
        at, status, code, ordinal = (list(column) for column in zip(*rows, strict=True))
        arrays = {"at": at, "status": status, "code": code, "ordinal": ordinal}
        # The bounds keep it from reading a whole batch that it has no statistics about yet.
        bounds = {"low": min(at), "high": max(at)}
        connection.execute(_END_ARRAYS, {"of": batch, "now": now, **bounds, **arrays})
        return
    names = ("at", "as_status", "as_code", "as_ordinal")
    connection.execute(
        _END, [{"of": batch, "now": now, **dict(zip(names, row, strict=True))} for row in rows]
    )
