"""Batches whose time runs out while some of their messages are lost: what came stays, the rest is told."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

from sqlalchemy import update

from ephemeralml.broker_config.health import depth
from ephemeralml.producer.gateway.store import Store
from ephemeralml.producer.gateway.store.models import batches
from ephemeralml.producer.inputs import InputItem
from ephemeralml.producer.lab import POOL, Lab
from ephemeralml.producer.remote import GatewayClient
from ephemeralml.producer.ticket import Ticket

from ..delivery.brokers import BROKERS, until
from ..delivery.host_redis import RedisHost
from ..delivery.nursery import Worker
from ..delivery.site import right, text
from ..gateway.relay.test_kills import sink
from .stand import Stand, stand
from .test_whole import receiver_of, types

WINDOW_S = 6
PACKS, PACK_JOBS = 5, 4


def plan(there: Stand, client: GatewayClient, name: str) -> Ticket:
    """Seal a batch whose jobs have a few seconds. A gateway takes no window below a minute."""
    items = [InputItem(str(n), (text(name, n),)) for n in range(PACKS * PACK_JOBS)]
    path = there.site.folder / f"{name}.ticket"
    fleet = client.trust_pool(POOL)
    ticket = client.plan(fleet, items, path, pack_jobs=PACK_JOBS, lifetime_s=WINDOW_S)
    ticket.head = replace(ticket.head, window_s=60)
    return ticket


def lose_two(there: Stand, client: GatewayClient, ticket: Ticket, worker: Worker) -> None:
    """Push a batch; the broker's host removes two of its packs before the worker can take them."""
    settings = there.site.broker.settings
    worker.signal(signal.SIGSTOP)
    client.push(ticket)
    store = Store(there.store_url)  # the minute is cut short where it is written
    with store.transaction() as connection:
        short = update(batches).where(batches.c.window_s == 60, batches.c.expires_at > time.time() + 30)
        connection.execute(short.values(expires_at=time.time() + WINDOW_S))
    store.close()
    until(lambda: (depth(settings, POOL).waiting or 0) >= PACKS)
    taken = RedisHost(settings, random.Random(1)).take("jobs.", 2)  # noqa: S311 - breaks nothing here
    assert len(taken) == 2
    worker.signal(signal.SIGCONT)
    until(lambda: client.status(ticket).counts["succeeded"] == 3 * PACK_JOBS)


def test_what_came_stays_and_the_rest_has_a_signed_end_or_none(remote_lab: Lab, tmp_path: Path) -> None:
    settings = {
        "EPHEMERALML_WEBHOOK_MASTER_SECRET": "A" * 43 + "=",
        "EPHEMERALML_WEBHOOK_ALLOW_LOOPBACK_HTTP": "true",
        "EPHEMERALML_RELAY_RESUBMIT_LEASES": "100",
        "EPHEMERALML_RELAY_EXPIRY_GRACE_S": "2",
    }
    with (
        BROKERS["redis"](tmp_path / "broker") as broker,
        stand(remote_lab, broker, tmp_path / "site", **settings) as there,
        sink() as server,
    ):
        receiver_of(there, server, "batch.expired", "batch.completed")
        worker, client = there.site.worker().ready(), there.client()
        # A worker is there at the end: it signs that the lost jobs' time is up, and the batch is whole.
        with plan(there, client, "late") as late:
            lose_two(there, client, late, worker)
            ends = list(client.results(late, 30))
            until(lambda: client.status(late).state == "completed", 30)
            assert Counter(end.status for end in ends) == {"succeeded": 12, "expired": 8}
            assert sum(right("late", end) for end in ends) == 12
            assert not late.missing
        # None is there: what came stays, and the client says which jobs have no end.
        with plan(there, client, "lost") as lost:
            begun = time.monotonic()
            lose_two(there, client, lost, worker)
            worker.signal(signal.SIGKILL)
            ends = list(client.results(lost, 30))
            until(lambda: client.status(lost).state == "expired", 30)
            assert time.monotonic() - begun >= WINDOW_S
            assert all(right("lost", end) for end in ends)
            assert len(ends) == 12
            assert len(lost.missing) == 8
            assert client.status(lost).counts["succeeded"] == 12
        until(lambda: types(server) == {"batch.completed": 1, "batch.expired": 1})
