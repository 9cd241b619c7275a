"""Drives batches from state to state: whole, sealed, completed; out of time; cancelled.

No end of a job is ever invented here: a job that no worker signed for stays without one, and the batch's
counts say so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, func, or_, select, update

from ....broker_config.blobs import BlobStore
from ..store import Store, batches, events, packs
from ..store.batches import Batch
from ..store.models import ACTIVE, BatchState
from ..store.models import batches as table
from ..store.models import packs as pack_table
from .dispatch import Submits
from .messages import job_message
from .seal import Sealing

LOG: Final = logging.getLogger("ephemeralml.relay")
MAX_CLAIM: Final = 20
#: Packs read at once when they are submitted a last time.
LAST_PACKS: Final = 64


def cancel_marker(pool: str, batch_id: bytes) -> str:
    """Return where the marker of a cancelled batch lies in the blob store, which workers look for."""
    return f"cancel/{pool}/{batch_id.hex()}"


@dataclass
class Driver:
    """Works on batches that something is due for; for one thread.

    :param grace_s: seconds that workers have to sign for jobs of a batch whose time is up.
    :param lease_s: seconds after which a dead relay's batches are free. :param now: wall clock, Unix seconds.
    """

    store: Store
    blobs: BlobStore
    submitter: Submits
    sealing: Sealing
    inline_limit: int
    grace_s: float
    lease_s: float
    now: Callable[[], float]

    def step(self) -> int:
        """Do what is due; return how many batches changed.

        :raises DeliveryError: store, blob store or broker cannot be used; call again.
        """
        self._mark_cancelled()
        with self.store.transaction() as connection:
            claimed = _claim(connection, self.now(), self.lease_s)
        changed = 0
        for number in claimed:
            try:
                with self.store.reading() as connection:
                    batch = batches.get(connection, number)
                if batch is not None:
                    changed += self._drive(batch)
            finally:
                with self.store.transaction() as connection:
                    free = update(table).where(table.c.id == number).values(lease_until=None)
                    connection.execute(free)
        return changed

    def _mark_cancelled(self) -> None:
        """Write the markers of batches that were cancelled since; an event is done when that is."""
        with self.store.transaction() as connection:
            found = events.claim(connection, self.now(), self.lease_s, kinds=("batch.cancelling",))
        for event in found:
            with self.store.reading() as connection:
                batch = None if event.batch is None else batches.get(connection, event.batch)
            if batch is not None and batch.state in ACTIVE:
                self.blobs.put(cancel_marker(batch.pool, batch.batch_id), b"1")
        with self.store.transaction() as connection:
            events.done(connection, [event.id for event in found], self.now())

    def _drive(self, batch: Batch) -> bool:
        now = self.now()
        if batch.ended >= batch.jobs:
            return self._whole(batch, now)
        if now < batch.expires_at:
            return False
        if self._last_call(batch, now):
            return True
        # Since the last call, and not since the time was up: the relays may have been away meanwhile.
        with self.store.reading() as connection:
            called_at = _called_at(connection, batch)
        if now < max(batch.expires_at, called_at) + self.grace_s:
            return False
        return self._end(batch, "cancelled" if batch.state == "cancelling" else "expired", now)

    def _whole(self, batch: Batch, now: float) -> bool:
        """All jobs have ended: have the batch sealed, then end it."""
        if batch.state in ("validating", "in_progress"):
            with self.store.transaction() as connection:
                return batches.move(connection, batch.id, "finalizing", now, of=("validating", "in_progress"))
        whole_at = max(batch.times.get("finalizing", 0.0), batch.last_reply_at or 0.0)
        if self.sealing.step(batch, whole_at, now) == "waiting":
            return False
        return self._end(batch, "cancelled" if batch.state == "cancelling" else "completed", now)

    def _end(self, batch: Batch, state: BatchState, now: float) -> bool:
        with self.store.transaction() as connection:
            moved = batches.move(connection, batch.id, state, now, event=f"batch.{state}")
        if moved:
            LOG.info("%s %s: %d of %d jobs have an end", batch.name, state, batch.ended, batch.jobs)
        if state == "cancelled":
            self.blobs.delete(cancel_marker(batch.pool, batch.batch_id))
        return moved

    def _last_call(self, batch: Batch, now: float) -> bool:
        """Submit what is unanswered once more: jobs that are out of time get a signed ``expired``."""
        with self.store.reading() as connection:
            found = _unanswered(connection, batch)
        for _, data in found:
            message = job_message(self.blobs, data, self.inline_limit, max(now, batch.expires_at))
            self.submitter.submit(batch.pool, message)
        with self.store.transaction() as connection:
            packs.submitted(connection, [number for number, _ in found], now)
        return bool(found)


def _claim(connection: Connection, now: float, lease_s: float) -> list[int]:
    free = or_(table.c.lease_until.is_(None), table.c.lease_until < now)
    due = or_(table.c.ended >= table.c.jobs, table.c.expires_at <= now)
    query = (
        select(table.c.id)
        .where(table.c.state.in_(ACTIVE) & free & due)
        .order_by(table.c.id)
        .limit(MAX_CLAIM)
        .with_for_update(skip_locked=True)
    )
    found = list(connection.execute(query).scalars())
    if found:
        connection.execute(update(table).where(table.c.id.in_(found)).values(lease_until=now + lease_s))
    return found


def _called_at(connection: Connection, batch: Batch) -> float:
    """Return when a pack of a batch was last submitted, Unix seconds; 0 where none was."""
    latest = select(func.max(pack_table.c.submitted_at)).where(pack_table.c.batch == batch.id)
    return float(connection.execute(latest).scalar() or 0)


def _unanswered(connection: Connection, batch: Batch) -> list[tuple[int, bytes]]:
    """Return packs that have jobs without an end and were not submitted since the batch's time was up."""
    before = or_(pack_table.c.submitted_at.is_(None), pack_table.c.submitted_at < batch.expires_at)
    silent = (pack_table.c.batch == batch.id) & (pack_table.c.ended < pack_table.c.jobs) & before
    query = select(pack_table.c.id, pack_table.c.data).where(silent & pack_table.c.data.is_not(None))
    return [(row[0], bytes(row[1])) for row in connection.execute(query.limit(LAST_PACKS))]
