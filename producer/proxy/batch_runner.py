"""Runs batches in the background through tickets, so that a proxy that was killed continues them.

What is done is on disk before what depends on it: the ticket appears whole under its name, the ticket
holds each reply before its message is acknowledged, and output files appear in one transaction with the
batch's last state. A batch that was cut short anywhere is begun again at the last of these.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from ...attestation.policy import TrustPolicy
from ...attestation.policy_source import PolicyInForce, PolicySource
from ...wire.errors import AppraisalError, ConfigurationError, EndorsementsError, Error
from ..client import Client
from ..lane import CANCEL_PREFIX
from ..ticket import Ticket
from .batch_input import BadInput, read_batch_input
from .batch_output import BatchOutput
from .batch_store import ENDED, Batch, BatchStore
from .calls import Call
from .errors import ApiError
from .service import Service
from .stores import Stores

#: Batches in work at once; others wait in order.
CONCURRENCY: Final = 2
#: Outcomes of a cancelled batch are waited for so long.
CANCEL_SECONDS: Final = 15.0
#: After the deadline, signed ``expired`` outcomes are waited for so long.
GRACE_SECONDS: Final = 5.0
#: Before a batch is tried again after broker, blob store or trust were lost.
RETRY_SECONDS: Final = 2.0


class Halted(AppraisalError):
    """No further reply of a batch is judged: the proxy stops, or the batch was cancelled."""


@dataclass
class HaltingPolicy:
    """A policy source that a batch can be stopped through: whatever judges asks its policy first.

    :param ends: monotonic seconds. :param marker: where the blob store tells workers of the end.
    """

    source: PolicySource
    stopping: threading.Event
    ends: float | None = None
    marker: str | None = None

    def in_force(self, now: float) -> PolicyInForce:
        """See PolicySource; raises :class:`Halted`."""
        if self.stopping.is_set() or (self.ends is not None and time.monotonic() > self.ends):
            raise Halted("BATCH_HALTED", "the batch is not judged any further")
        return self.source.in_force(now)

    def current(self, now: float) -> TrustPolicy:
        """See PolicySource; raises :class:`Halted`."""
        return self.in_force(now).policy


@dataclass
class BatchRunner:
    """Works on batches in threads; a context manager."""

    service: Service
    stores: Stores
    batches: BatchStore
    _stopping: threading.Event = field(default_factory=threading.Event)
    _halts: dict[str, HaltingPolicy] = field(default_factory=dict)

    def __enter__(self) -> BatchRunner:
        """Continue what an earlier proxy left."""
        try:
            self.stores.tickets.mkdir(exist_ok=True, mode=0o700)
        except OSError as error:
            message = f"the proxy's folder cannot be used: {error.strerror}"
            raise ConfigurationError("PROXY_FOLDER_UNUSABLE", message) from None
        self._pool = ThreadPoolExecutor(CONCURRENCY, thread_name_prefix="batch")
        for batch_id in self.batches.unfinished():
            self.start(batch_id)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._pool.shutdown(cancel_futures=True)

    def start(self, batch_id: str) -> None:
        """Begin a batch when its turn comes."""
        self._pool.submit(self._run, batch_id)

    def cancel(self, batch_id: str) -> Batch:
        """Ask for a batch's end; workers sign ``cancelled`` for what they meet after this.

        :raises ApiError: 404.
        """

        def cancelling(batch: Batch) -> None:
            if batch.status not in ENDED:
                batch.status = "cancelling"

        batch = self.batches.change(batch_id, cancelling)
        halt = self._halts.get(batch_id)
        if halt is not None:
            self._halt(halt)
        return batch

    def _halt(self, halt: HaltingPolicy) -> None:
        """Tell the workers, and let what they still answer come in for a while."""
        halt.ends = halt.ends or time.monotonic() + CANCEL_SECONDS
        if halt.marker is not None:
            with suppress(Error):  # they may miss it: then they run what nobody waits for
                self.service.session.client.blobs.put(halt.marker, b"")

    # ------------------------------------------------------------------ work

    def _run(self, batch_id: str) -> None:
        """Work until the batch has ended; trouble that passes is waited out."""
        while not self._stopping.is_set():
            try:
                self._work(self.batches.get(batch_id))
                return
            except Halted:
                continue
            except Error as error:
                passing = error.retriable or isinstance(error, (AppraisalError, EndorsementsError))
                if not passing or self._late(batch_id):
                    self._fail(batch_id, [_stated(error.code, error.message)])
                    return
            except Exception:  # a fault of ours: the batch says so, its text may hold anything
                self._fail(batch_id, [_stated("UNEXPECTED", "an unexpected fault")])
                return
            self._stopping.wait(RETRY_SECONDS)

    def _fail(self, batch_id: str, errors: list[dict[str, object]]) -> None:
        def failed(batch: Batch) -> None:
            batch.status, batch.errors = "failed", errors

        with suppress(Error):
            self.batches.change(batch_id, failed)
        self._ticket_path(batch_id).unlink(missing_ok=True)

    def _late(self, batch_id: str) -> bool:
        """Whether a batch's window has passed, so that no trouble is waited out any more."""
        with suppress(Error, ApiError):
            return self.batches.now() > self.batches.get(batch_id).expires + GRACE_SECONDS
        return True

    def _ticket_path(self, batch_id: str) -> Path:
        return self.stores.tickets / f"{batch_id}.ticket"

    def _work(self, batch: Batch) -> None:
        path = self._ticket_path(batch.id)
        try:
            source = self.stores.files.path(batch.input_file_id)
            calls = read_batch_input(source, batch.endpoint, self.service)
        except BadInput as bad:
            self._fail(batch.id, bad.errors)
            return
        halt = HaltingPolicy(self.service.session.client.trust.policy, self._stopping)
        self._halts[batch.id] = halt
        try:
            if not path.exists() and (end := self._end_unplanned(batch)) is not None:
                self.batches.change(batch.id, end)
                return
            client = self._client(halt)
            if not path.exists():
                self._plan(client, batch, calls, path)
            with Ticket.load(path) as ticket:
                self._collect(client, batch.id, ticket, calls, halt)
        finally:
            del self._halts[batch.id]
        path.unlink(missing_ok=True)

    def _end_unplanned(self, batch: Batch) -> Callable[[Batch], None] | None:
        """Return how a batch ends of which nothing was sealed; None where it is to be sealed now."""
        if batch.status == "cancelling":
            return partial(_become, "cancelled")
        return partial(_become, "expired") if self.batches.now() > batch.expires else None

    def _client(self, policy: PolicySource) -> Client:
        base = self.service.session.client
        return Client(base.broker, base.blobs, policy, base.endorsements, base.now)

    def _plan(self, client: Client, batch: Batch, calls: dict[str, Call], path: Path) -> None:
        """Seal all of it into a ticket, which then appears whole under its name."""
        first = next(iter(calls.values()))
        draft = path.with_suffix(".draft")
        draft.unlink(missing_ok=True)
        fleet = client.trust_pool(first.pool)
        lifetime_s = max(1, batch.expires - int(client.now()))
        items = [call.item for call in calls.values()]
        with client.plan(fleet, items, draft, task=first.task, lifetime_s=lifetime_s, batch=True):
            os.replace(draft, path)

        def planned(batch: Batch) -> None:
            batch.model, batch.total = fleet.model.id, len(items)
            if batch.status == "validating":
                batch.status = "in_progress"

        self.batches.change(batch.id, planned)

    def _collect(
        self, client: Client, batch_id: str, ticket: Ticket, calls: dict[str, Call], halt: HaltingPolicy
    ) -> None:
        with BatchOutput(batch_id, self.service, self.stores, self.batches, calls) as output:
            try:
                self._receive(client, batch_id, ticket, halt, output)
            except Halted:
                if self._stopping.is_set():
                    raise
            output.finish(ticket)

    def _receive(
        self, client: Client, batch_id: str, ticket: Ticket, halt: HaltingPolicy, output: BatchOutput
    ) -> None:
        halt.marker = f"{CANCEL_PREFIX}/{ticket.head.pool}/{ticket.head.batch_id}"
        if self.batches.get(batch_id).status == "cancelling":
            self._halt(halt)
            if not ticket.last_submitted:
                return
        else:
            client.push(ticket)
        while True:
            left = ticket.head.not_after + GRACE_SECONDS - client.now()
            for result in client.results(ticket, max(left, 0.0)):
                output.add(result)
            if not ticket.missing or left <= 0:
                return


def _become(status: str, batch: Batch) -> None:
    batch.status = status


def _stated(code: str, message: str) -> dict[str, object]:
    return {"code": code, "message": message, "line": None, "param": None}
