"""Uploads: staged in pieces that nobody sees, then accepted whole in one transaction, or gone.

A staged batch belongs to the process that stages it, for as long as it renews its time. What a killed
process left is swept when that has run out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, Connection, select, update
from sqlalchemy.exc import IntegrityError

from ....wire.errors import DeliveryError
from . import batches as batch_rows
from . import bulk
from .models import batches, packs, tenants

#: Seconds that a staged upload stays without a sign of its process.
STAGED_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """What an upload says of itself before its jobs; see spec/gateway.md.

    :param batch_id: 16 bytes. :param jobs: how many will come. :param window_s: seconds to its expiry.
    :param input_root: 32 bytes or None. :param key: idempotency key or None.
    """

    batch_id: bytes
    pool: str
    jobs: int
    window_s: int
    input_root: bytes | None
    metadata: Mapping[str, str]
    key: str | None


@dataclass(frozen=True, slots=True)
class StagedPack:
    """A pack of jobs (``data``: see wire.pack) and what the table keeps of each: index, job id, custom id."""

    data: bytes
    jobs: Sequence[tuple[int, bytes, str | None]]


def begin(connection: Connection, tenant_id: int, upload: Upload, now: float) -> int:
    """Make the hidden batch of an upload and return its number.

    :raises DeliveryError: ``BATCH_EXISTS``: a batch of this id was accepted; ``UPLOAD_IN_PROGRESS``: another
        upload with this id or idempotency key has not ended yet.
    """
    mine = batches.c.batch_id == upload.batch_id
    if upload.key is not None:
        mine |= (batches.c.tenant_id == tenant_id) & (batches.c.idempotency_key == upload.key)
    connection.execute(batches.delete().where(_left_over(now) & mine))
    row: dict[str, object] = {
        "tenant_id": tenant_id,
        "batch_id": upload.batch_id,
        "pool": upload.pool,
        "state": "staging",
        "input_root": upload.input_root,
        "metadata": json.dumps(dict(upload.metadata)) if upload.metadata else None,
        "idempotency_key": upload.key,
        "window_s": upload.window_s,
        "jobs": upload.jobs,
        "created_at": now,
        "expires_at": now + upload.window_s,
        "staged_until": now + STAGED_SECONDS,
    }
    try:
        with connection.begin_nested():
            return int(connection.execute(batches.insert().values(row).returning(batches.c.id)).scalar_one())
    except IntegrityError:
        raise _taken(connection, mine) from None


def _left_over(now: float) -> ColumnElement[bool]:
    return (batches.c.state == "staging") & (batches.c.staged_until < now)


def _taken(connection: Connection, mine: ColumnElement[bool]) -> DeliveryError:
    if "staging" in connection.execute(select(batches.c.state).where(mine)).scalars():
        return DeliveryError("UPLOAD_IN_PROGRESS", "another upload of this batch has not ended yet")
    return DeliveryError("BATCH_EXISTS", "a batch of this id was accepted before", retriable=False)


def add(connection: Connection, batch: int, first: int, staged: Sequence[StagedPack], now: float) -> None:
    """Stage packs, maybe none, and renew the upload's time.

    :param first: number of the first of them, counting from 0 in the batch.
    :raises DeliveryError: ``UPLOAD_LOST``: its time had run out and it was swept.
    """
    size = sum(len(pack.data) for pack in staged)
    this = (batches.c.id == batch) & (batches.c.state == "staging")
    change = {"staged_until": now + STAGED_SECONDS, "bytes_stored": batches.c.bytes_stored + size}
    change["packs"] = batches.c.packs + len(staged)
    if connection.execute(update(batches).where(this).values(change)).rowcount != 1:
        raise _lost()
    if not staged:
        return
    connection.execute(
        packs.insert(),
        [
            {
                "batch": batch,
                "number": number,
                "state": "staged",
                "jobs": len(pack.jobs),
                "size": len(pack.data),
                "data": pack.data,
            }
            for number, pack in enumerate(staged, first)
        ],
    )
    bulk.insert_jobs(
        connection,
        batch,
        [(number, *job) for number, pack in enumerate(staged, first) for job in pack.jobs],
    )


def accept(connection: Connection, batch: int, tenant_id: int, digest: bytes, now: float) -> batch_rows.Batch:
    """Make a whole upload a batch that everyone of the tenant sees and a relay takes.

    :param digest: SHA-256 of the request's body.
    :raises DeliveryError: ``UPLOAD_LOST``, ``QUOTA_JOBS`` or ``QUOTA_BYTES``.
    """
    limits = connection.execute(
        select(tenants.c.max_jobs, tenants.c.max_bytes).where(tenants.c.id == tenant_id).with_for_update()
    ).one()
    this = (batches.c.id == batch) & (batches.c.state == "staging")
    change = {"state": "validating", "request_digest": digest, "created_at": now, "staged_until": None}
    change["expires_at"] = batches.c.window_s + now
    if connection.execute(update(batches).where(this).values(change)).rowcount != 1:
        raise _lost()
    connection.execute(
        update(packs).where((packs.c.batch == batch) & (packs.c.state == "staged")).values(state="ready")
    )
    used = batch_rows.usage(connection, tenant_id)
    if used.jobs > limits.max_jobs:
        raise over_jobs()
    if used.stored > limits.max_bytes:
        raise over_bytes()
    accepted = batch_rows.get(connection, batch)
    assert accepted is not None  # noqa: S101 - updated above, in this transaction
    return accepted


def over_jobs() -> DeliveryError:
    """Return the refusal of more jobs than a tenant may have in flight."""
    return DeliveryError("QUOTA_JOBS", "more jobs in flight than this tenant may have: wait or ask for more")


def over_bytes() -> DeliveryError:
    """Return the refusal of more bytes than a tenant may store."""
    return DeliveryError("QUOTA_BYTES", "more stored than this tenant may: delete batches that have ended")


def _lost() -> DeliveryError:
    return DeliveryError("UPLOAD_LOST", "the upload stood still for too long and was swept: send it again")


def discard(connection: Connection, batch: int) -> None:
    """Remove an upload that will not be accepted; harmless when it is gone, or accepted."""
    connection.execute(batches.delete().where((batches.c.id == batch) & (batches.c.state == "staging")))


def sweep(connection: Connection, now: float) -> int:
    """Remove what uploads left whose processes are gone; return how many there were."""
    return connection.execute(batches.delete().where(_left_over(now))).rowcount
