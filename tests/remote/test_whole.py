"""Everything together, each part a real process: client, gateway, relay, broker, worker, webhooks."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ephemeralml.producer.gateway.store import Store, tenants
from ephemeralml.producer.gateway.webhooks import endpoints
from ephemeralml.producer.gateway.webhooks.keys import Master, shown
from ephemeralml.producer.gateway.webhooks.signing import read_verifying_key
from ephemeralml.producer.judge import JobResult
from ephemeralml.producer.lab import Lab
from ephemeralml.producer.webhooks import Receiver, book_of

from ..delivery.auditor import leaks
from ..delivery.brokers import BROKERS, until
from ..delivery.site import right
from ..gateway.relay.test_kills import Sink, sink
from ..servers import postgres
from .stand import Stand, stand

JOBS = 40
MASTER = Master(bytes(32))
EVENTS = ["job.completed", "job.failed", "batch.completed", "batch.cancelled"]


@pytest.fixture(params=["sqlite-redis", "postgresql-sqs", "sqlite-pubsub"])
def place(
    request: pytest.FixtureRequest, remote_lab: Lab, tmp_path: Path
) -> Iterator[tuple[Stand, list[Path]]]:
    """A stand, and where the host keeps what it writes."""
    database, _, carrier = request.param.partition("-")
    with ExitStack() as running:
        url, kept = None, [tmp_path]
        if database == "postgresql":
            server = running.enter_context(postgres.running())
            url = server.database()
            kept.append(server.folder)
        broker = running.enter_context(BROKERS[carrier](tmp_path / "broker"))
        made = running.enter_context(
            stand(
                remote_lab,
                broker,
                tmp_path / "site",
                url,
                EPHEMERALML_WEBHOOK_MASTER_SECRET="A" * 43 + "=",
                EPHEMERALML_WEBHOOK_ALLOW_LOOPBACK_HTTP="true",
            )
        )
        yield made, kept


def types(server: Sink) -> Counter[str]:
    """Return how many events of each type have come."""
    return Counter(json.loads(body)["type"] for _, body in list(server.got))


def receiver_of(there: Stand, server: Sink, *wanted: str) -> str:
    """Register the receiver and return the key that it is shown."""
    store = Store(there.store_url)
    with store.transaction() as connection:
        tenant = tenants.ensure(connection, "acme", time.time())
        url = f"http://127.0.0.1:{server.server_port}/hook"
        made = endpoints.create(
            connection, tenant.id, url, MASTER, time.time(), wanted=wanted or EVENTS, limit=9
        )
    store.close()
    return shown(MASTER.key("v1", made.endpoint_id, 1))


def test_a_batch_completes_one_is_cancelled_and_webhooks_tell_of_both(
    place: tuple[Stand, list[Path]],
) -> None:
    there, kept = place
    worker = there.site.worker().ready()
    client = there.client()
    with sink() as server, there.plan(client, "done", JOBS) as done:
        key = read_verifying_key(receiver_of(there, server))
        client.push(done)
        results = list(client.results(done, 60))
        assert len(results) == JOBS
        assert all(right("done", result) for result in results)
        until(lambda: client.status(done).state == "completed")  # its statement is signed
        worker.signal(signal.SIGSTOP)
        with there.plan(client, "never", JOBS) as never:
            client.push(never)
            client.cancel(never)
            until(lambda: client.status(never).state in ("cancelling", "cancelled"))
            time.sleep(0.5)  # the relay leaves its mark in the blob store before workers go on
            worker.signal(signal.SIGCONT)
            ends = {result.status for result in client.results(never, 60)}
            assert not never.missing
            assert "cancelled" in ends
            assert ends <= {"cancelled", "succeeded"}
            until(lambda: client.status(never).state == "cancelled")
            until(lambda: types(server)["batch.completed"] + types(server)["batch.cancelled"] == 2)
            until(lambda: types(server)["job.completed"] >= JOBS)  # every tenth is refused at first
            receiver = Receiver([key], book_of([done, never]), client.trust)
            told: dict[str, list[JobResult]] = {name: [] for name in EVENTS}
            kinds: list[str] = []
            for headers, body in list(server.got):
                with receiver.open(body, headers) as event:
                    kinds.append(event.type)
                    if event.result is not None:
                        told[event.type].append(event.result)
            assert kinds.count("batch.completed") == 1
            assert kinds.count("batch.cancelled") == 1
            assert sum(right("done", result) for result in told["job.completed"]) == JOBS
        bodies = there.site.folder / "bodies"
        bodies.write_bytes(b"\n".join(body for _, body in server.got))
    found = [name for folder in kept for name in leaks(folder) if not name.endswith(".ticket")]
    assert found == []
