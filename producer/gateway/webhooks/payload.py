"""What a webhook says: JSON of public values, for a job its sealed reply or where that is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Connection

from ....wire.pack import decode_replies, encode_replies
from ..store import batches, replies
from ..upload.lines import to_base64
from .deliveries import Delivery

#: A larger reply is linked: receivers' frameworks refuse large bodies, and retries repeat them.
MAX_REPLY_BYTES: Final = 192 << 10
_READ_BYTES: Final = 1 << 20


def body(connection: Connection, delivery: Delivery) -> bytes | None:
    """Return the body of a delivery, the same bytes each time; None: what it speaks of is gone.

    :param connection: of a transaction that reads.
    """
    data: dict[str, object] | None = dict(delivery.data)
    if delivery.batch is not None:
        data = _of_batch(connection, delivery)
    if data is None:
        return None
    return encode(delivery.type, delivery.happened_at, data)


def encode(kind: str, happened_at: float, data: Mapping[str, object]) -> bytes:
    """Return a body."""
    at = datetime.fromtimestamp(happened_at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps({"type": kind, "timestamp": at, "data": dict(data)}, separators=(",", ":")).encode()


def _of_batch(connection: Connection, delivery: Delivery) -> dict[str, object] | None:
    batch = None if delivery.batch is None else batches.get(connection, delivery.batch)
    if batch is None:
        return None
    about: dict[str, object] = {"batch_id": batch.name, "pool": batch.pool, **delivery.data}
    if delivery.index is None:
        counts = {"total": batch.jobs, **batch.counts, "unanswered": batch.jobs - batch.ended}
        sealed = batches.statement_of(connection, batch.id) is not None
        return about | {"status": batch.state, "counts": counts, "statement": sealed}
    place = replies.place(connection, batch.id, delivery.index)
    found = replies.after(connection, batch.id, place, max_bytes=_READ_BYTES) if place is not None else []
    job = replies.ends(connection, batch.id, [delivery.index])
    if place is None or not found or not job:
        return None
    (reply,) = decode_replies(found[0].data)[1][place - found[0].first :][:1]
    pack = encode_replies(batch.pool, [reply])
    about |= {
        "index": delivery.index,
        "custom_id": job[0].custom_id,
        "job_id": reply.job_id.hex(),
        "status": job[0].status,
        "code": job[0].code,
    }
    inline = len(pack) <= MAX_REPLY_BYTES
    link = None if inline else f"/v1/batches/{batch.name}/results?after={place}"
    return about | {"reply": to_base64(pack) if inline else None, "link": link}
