"""The batch file of a batch whose jobs have all ended: what a worker seals and an auditor checks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sqlalchemy import Connection

from ...receipts.batch_statement import BatchHead
from ...receipts.batch_verify import write_batch
from ...wire.errors import DeliveryError
from ...wire.pack import decode_replies
from .store import replies
from .store.batches import Batch

_READ_BYTES: Final = 4 << 20
_PIECE_BYTES: Final = 1 << 20


def batch_file(connection: Connection, batch: Batch) -> Iterator[bytes]:
    """Yield the batch file (spec/batch.md) in pieces: the head, then every outcome in index order.

    Holds all outcomes, some 350 bytes a job, and one pack of replies in memory.

    :raises DeliveryError: ``NOT_COMMITTED``: the upload named no input root; ``BATCH_UNFINISHED``.
    """
    if batch.input_root is None:
        raise DeliveryError("NOT_COMMITTED", "the upload of this batch named no input root", retriable=False)
    outcomes = _outcomes(connection, batch)
    head = BatchHead(batch.batch_id, batch.pool, batch.jobs, batch.input_root)
    return _pieces(write_batch(head, outcomes))


def _outcomes(connection: Connection, batch: Batch) -> list[bytes]:
    found: list[bytes | None] = [None] * batch.jobs
    seen = 0
    while packs := replies.after(connection, batch.id, seen, max_bytes=_READ_BYTES):
        for pack in packs:
            for index, reply in zip(pack.indexes, decode_replies(pack.data)[1], strict=True):
                found[index] = reply.outcome
            seen = pack.first + len(pack.indexes)
    whole = [outcome for outcome in found if outcome is not None]
    if len(whole) != batch.jobs:
        raise DeliveryError("BATCH_UNFINISHED", "some jobs of this batch have no outcome")
    return whole


def _pieces(items: Iterator[bytes]) -> Iterator[bytes]:
    held = bytearray()
    for item in items:
        held += item
        if len(held) >= _PIECE_BYTES:
            yield bytes(held)
            held.clear()
    yield bytes(held)
