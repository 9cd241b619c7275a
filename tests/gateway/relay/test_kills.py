"""Two relays that are killed again and again: nothing lost, nothing double, every event delivered."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from sqlalchemy import func, select

from ephemeralml.broker_config.blobs import make_blob_store
from ephemeralml.producer.gateway.store import Store, batches, identity, tenants
from ephemeralml.producer.gateway.store.models import jobs
from ephemeralml.producer.gateway.webhooks import endpoints
from ephemeralml.producer.gateway.webhooks.keys import Master, shown
from ephemeralml.producer.gateway.webhooks.signing import ID, SIGNATURE, TIMESTAMP, read_verifying_key, verify

from ...delivery.brokers import embedded, until
from ..uploads import SealedBatch
from .forks import Forks
from .hand import Hand, HandAtWork, put_batch, state_of

KILLS = 20
JOBS = 2048
MASTER = Master(bytes(32))


class Sink(ThreadingHTTPServer):
    """A receiver that keeps what it is sent, and refuses every tenth once."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.met: set[str] = set()


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, Sink)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        met = self.headers[ID] in server.met
        server.met.add(self.headers[ID])
        if not met and len(server.met) % 10 == 0:
            self.send_response(500)
        else:
            server.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def sink() -> Iterator[Sink]:
    """Serve on a free port."""
    server = Sink()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_killed_relays_lose_and_double_nothing(store_url: str, store: Store, tmp_path: Path) -> None:
    chance = random.Random(7)  # noqa: S311 - the same every time
    with embedded(tmp_path / "broker") as broker, sink() as receiver, Forks(tmp_path) as forks:
        now = time.time()
        with store.transaction() as connection:
            tenant = tenants.ensure(connection, "acme", now)
            url = f"http://127.0.0.1:{receiver.server_port}/hook"
            events = ["batch.completed", "job.failed"]
            endpoint = endpoints.create(connection, tenant.id, url, MASTER, now, wanted=events, limit=9)
            reply_to = identity.reply_to(connection)
        hand = Hand(make_blob_store(broker.settings))
        batch = SealedBatch(reply_to, JOBS, pack_jobs=16, input_root=os.urandom(32), now=int(now))
        number = put_batch(store, tenant.id, batch)
        small = SealedBatch(reply_to, 48, pack_jobs=8, now=int(now))
        environment = {
            **broker.environment,
            "EPHEMERALML_GATEWAY_STORE_URL": store_url,
            "EPHEMERALML_WEBHOOK_MASTER_SECRET": "A" * 43 + "=",
            "EPHEMERALML_WEBHOOK_ALLOW_LOOPBACK_HTTP": "true",
            "EPHEMERALML_WEBHOOK_ATTEMPT_TIMEOUT_S": "5",
            "EPHEMERALML_RELAY_LEASE_S": "1",
            "EPHEMERALML_RELAY_POLL_S": "0.05",
        }
        with HandAtWork(hand, broker.settings, reply_to):
            running = [forks.start(environment, "relay") for _ in range(2)]
            for kill in range(KILLS):
                # From before it is ready to in the middle of its work.
                time.sleep(chance.uniform(0.1, 0.9))
                victim = running.pop(chance.randrange(2))
                victim.signal(signal.SIGKILL)
                victim.ended()
                if kill == KILLS // 2:
                    hand.status = "failed"
                    other = put_batch(store, tenant.id, small)
                running.append(forks.start(environment, "relay"))
            until(lambda: state_of(store, number).state == "completed", 120)
            until(lambda: state_of(store, other).state == "completed", 120)
            until(
                lambda: len({head[ID] for head, _ in receiver.got}) >= _expected(store, [number, other]), 120
            )
        for process in running:
            process.signal(signal.SIGTERM)
            process.ended()
            assert "stopped" in process.text
    _every_job_once(store, number, JOBS)
    _every_job_once(store, other, 48)
    with store.reading() as connection:
        assert batches.statement_of(connection, number) is not None
    key = read_verifying_key(shown(MASTER.key("v1", endpoint.endpoint_id, 1)))
    meant: dict[str, set[bytes]] = {}
    for head, body in receiver.got:
        verify([key], head[ID], head[TIMESTAMP], head[SIGNATURE], body, time.time())
        meant.setdefault(head[ID], set()).add(body)
    assert all(len(bodies) == 1 for bodies in meant.values())  # the same under its id each time
    bodies = Counter(body for found in meant.values() for body in found)
    assert max(bodies.values()) == 1  # and every event under one id only
    kinds = Counter(json.loads(body)["type"] for body in bodies)
    assert kinds["batch.completed"] == 2
    assert kinds["job.failed"] == state_of(store, number).counts["failed"] + 48


def _expected(store: Store, numbers: list[int]) -> int:
    return 2 + sum(state_of(store, number).counts["failed"] for number in numbers)


def _every_job_once(store: Store, number: int, count: int) -> None:
    found = state_of(store, number)
    assert (found.ended, sum(found.counts.values())) == (count, count)
    with store.reading() as connection:
        where = jobs.c.batch == number
        ordinals = select(func.count(jobs.c.ordinal.distinct()), func.max(jobs.c.ordinal)).where(where)
        assert tuple(connection.execute(ordinals).one()) == (count, count - 1)
