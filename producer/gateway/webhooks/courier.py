"""Carries events to endpoints: out of the outbox, into deliveries, over the network, until taken or given up.

Crash-safe by the store alone: an event becomes deliveries in one transaction, a delivery is leased while it
is sent, and what became of it is written down afterwards. A relay that dies in between sends again, under
the same ``webhook-id``.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection

from ....wire.errors import Error
from ..store import Store, events
from . import deliveries, endpoints, payload
from .deliveries import Delivery
from .endpoints import DISABLED, EVENTS, Endpoint
from .keys import Master
from .schedule import delay
from .sender import GONE, Answer, Sender
from .signing import headers

LOG: Final = logging.getLogger("ephemeralml.relay")
#: An endpoint that took nothing for so long is disabled when a delivery runs out of attempts.
FAILING_S: Final = 72 * 3600.0
KEEP_EVENTS_S: Final = 3600.0


def fan_out(connection: Connection, now: float, lease_s: float) -> int:
    """Turn events of the outbox into deliveries, in one transaction; return how many events there were."""
    taken = events.claim(connection, now, lease_s, kinds=(*EVENTS, DISABLED))
    if not taken:
        return 0
    listening: dict[int, list[Endpoint]] = defaultdict(list)
    for endpoint in endpoints.of_tenants(connection, {event.tenant_id for event in taken}):
        listening[endpoint.tenant_id].append(endpoint)
    rows = [
        deliveries.row(
            endpoint,
            event.type,
            now,
            batch=event.batch,
            index=event.index,
            data=event.data,
            happened_at=event.created_at,
        )
        for event in taken
        for endpoint in listening[event.tenant_id]
        if event.type in endpoint.events or event.type == DISABLED
    ]
    deliveries.add(connection, rows)
    events.done(connection, [event.id for event in taken], now)
    return len(taken)


@dataclass(frozen=True, slots=True)
class _Parcel:
    delivery: Delivery
    endpoint: Endpoint
    body: bytes


@dataclass
class Courier:
    """The delivering part of one relay; :meth:`step` is for one thread.

    :param workers: attempts at once. :param per_endpoint: of these to one endpoint, so that a slow one
        leaves room to others. :param keep_s: seconds that ended deliveries are kept.
    :param lease_s: seconds, over the time of an attempt, after which a dead relay's deliveries are free.
    """

    store: Store
    master: Master
    sender: Sender
    workers: int = 16
    per_endpoint: int = 4
    keep_s: float = 30 * 86_400
    lease_s: float = 30.0
    now: Callable[[], float] = time.time
    chance: Callable[[], float] = random.random
    delivered: int = field(default=0, init=False)
    failed: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._pool = ThreadPoolExecutor(self.workers, thread_name_prefix="webhook")
        self._busy: Counter[int] = Counter()
        self._lock = threading.Lock()
        self._tidied = 0.0

    def step(self) -> int:
        """Do what is due now; return how many events and deliveries were taken.

        :raises DeliveryError: the store cannot be used; call again.
        """
        now = self.now()
        with self.store.transaction() as connection:
            moved = fan_out(connection, now, self.lease_s)
        room = self.workers - sum(self._counts().values())
        if room <= 0:
            return moved
        busy = [number for number, count in self._counts().items() if count >= self.per_endpoint]
        with self.store.transaction() as connection:
            lease = self.sender.attempt_s + self.lease_s
            due = deliveries.claim(connection, now, lease, limit=room, busy=busy)
        for parcel in self._parcels(due, now):
            with self._lock:
                self._busy[parcel.endpoint.id] += 1
            self._pool.submit(self._attempt, parcel).add_done_callback(self._ended(parcel.endpoint.id))
        return moved + len(due)

    def tidy(self) -> None:
        """Remove what ended long ago; does nothing more often than once a minute.

        :raises DeliveryError: the store cannot be used; call again.
        """
        now = self.now()
        if now - self._tidied < 60:
            return
        self._tidied = now
        with self.store.transaction() as connection:
            deliveries.forget_ended(connection, now - self.keep_s)
            events.forget_done(connection, now - KEEP_EVENTS_S)

    def close(self) -> None:
        """Finish what is being sent."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _counts(self) -> Counter[int]:
        with self._lock:
            return +self._busy

    def _ended(self, endpoint: int) -> Callable[[Future[None]], None]:
        def note(future: Future[None]) -> None:
            with self._lock:
                self._busy[endpoint] -= 1
            error = None if future.cancelled() else future.exception()
            if error is not None:
                code = error.code if isinstance(error, Error) else type(error).__name__
                LOG.warning("a webhook's attempt was not written down and is made again: %s", code)

        return note

    def _parcels(self, due: Sequence[Delivery], now: float) -> list[_Parcel]:
        """Make what is sent; give up what has nothing to say any more, give back what has no room."""
        ready: list[_Parcel] = []
        back: list[int] = []
        gone: list[Delivery] = []
        counts = self._counts()
        with self.store.reading() as connection:
            known = {number: endpoints.get(connection, number) for number in {each.endpoint for each in due}}
            for delivery in due:
                endpoint = known[delivery.endpoint]
                if endpoint is None or counts[delivery.endpoint] >= self.per_endpoint:
                    back.append(delivery.id)
                elif not self.master.is_of(endpoint.endpoint_id, endpoint.key_check):
                    LOG.error("%s: its keys come from another master secret", endpoint.name)
                elif (made := payload.body(connection, delivery)) is None:
                    gone.append(delivery)
                else:
                    counts[delivery.endpoint] += 1
                    ready.append(_Parcel(delivery, endpoint, made))
        if back or gone:
            with self.store.transaction() as connection:
                deliveries.release(connection, back)
                for delivery in gone:
                    deliveries.attempted(
                        connection, delivery, now, status=0, code="CONTENT_DELETED", next_at=None
                    )
        return ready

    def _attempt(self, parcel: _Parcel) -> None:
        endpoint, delivery = parcel.endpoint, parcel.delivery
        now = self.now()
        versions = [endpoint.key_version]
        if endpoint.old_key_until is not None and now < endpoint.old_key_until:
            versions.append(endpoint.key_version - 1)
        keys = [self.master.key(endpoint.signing, endpoint.endpoint_id, version) for version in versions]
        signed = headers(keys, delivery.name, int(now), parcel.body)
        answer = self.sender.send(
            endpoint.url, {**signed, "Content-Type": "application/json; charset=utf-8"}, parcel.body
        )
        self._write_down(delivery, endpoint, answer)

    def _write_down(self, delivery: Delivery, endpoint: Endpoint, answer: Answer) -> None:
        now = self.now()
        wait = delay(delivery.attempts + 1, self.chance, answer.retry_after_s)
        if answer.status == GONE:
            wait = None
        with self.store.transaction() as connection:
            next_at = None if wait is None else now + wait
            deliveries.attempted(
                connection, delivery, now, status=answer.status, code=answer.code, next_at=next_at
            )
            if answer.delivered:
                endpoints.succeeded(connection, [endpoint.id])
            else:
                endpoints.failed(connection, endpoint.id, now)
                self._disable(connection, endpoint, answer, now, exhausted=wait is None)
        self.delivered += answer.delivered
        self.failed += not answer.delivered
        result = answer.code or "delivered"
        LOG.info("%s to %s: %s status=%d", delivery.name, endpoint.name, result, answer.status)

    def _disable(
        self, connection: Connection, endpoint: Endpoint, answer: Answer, now: float, *, exhausted: bool
    ) -> None:
        current = endpoints.get(connection, endpoint.id)
        since = None if current is None else current.failing_since
        if answer.status == GONE:
            reason = "GONE"
        elif exhausted and since is not None and now - since >= FAILING_S:
            reason = "FAILING"
        else:
            return
        if endpoints.disable(connection, endpoint, reason, now):
            LOG.warning("%s was disabled: %s", endpoint.name, reason)
