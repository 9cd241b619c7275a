"""A real worker behind its status pages, its log as JSON; afterwards everything it told is searched."""

from __future__ import annotations

import base64
import json
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from ephemeralml.broker_config.submit import Submitter
from ephemeralml.producer.inputs import InputItem
from ephemeralml.producer.lab import POOL
from ephemeralml.workers.logs import FIELDS

from ..broker.conftest import free_port
from ..way.fleet import Fleet, collect, fleet, site, until
from .test_metrics import value

CANARY = "CANARY-55d0 of a person's text"


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Fleet]:
    with site(tmp_path) as (lab, zygote), fleet(lab, zygote, tmp_path) as made:
        yield made


def get(port: int, path: str) -> tuple[int, str]:
    """Fetch a page; 0 where nobody serves it."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""


def test_a_worker_tells_how_it_is_and_nothing_of_its_jobs(watched: Fleet, tmp_path: Path) -> None:
    port = free_port()
    (worker,) = watched.start(1, EPHEMERALML_WORKER_STATUS=f"127.0.0.1:{port}", EPHEMERALML_LOG="json")
    until(lambda: get(port, "/readyz")[0] == 200, about=lambda: get(port, "/readyz")[1] + worker.text)
    assert get(port, "/healthz") == (200, '{"alive": true}\n')
    client = watched.client()
    items = [InputItem(str(n), (CANARY,), {"dimensions": 4}) for n in range(6)]
    items.append(InputItem("bad", (CANARY,), {CANARY: 1}))
    with client.plan(client.trust_pool(POOL), items, tmp_path / "t", pack_jobs=4) as ticket:
        client.push(ticket)
        ends = collect(client, ticket)
    with Submitter(watched.server.settings) as submitter:
        submitter.submit(POOL, CANARY.encode())
    assert [end.custom_id for end in ends.values() if end.status == "failed"] == ["bad"]

    def page() -> bytes:
        return get(port, "/metrics")[1].encode()

    until(lambda: value(page(), "messages_ended_total", end="dead") == 1, about=lambda: worker.text)
    told = page()
    assert value(told, "outcomes_total", status="succeeded", code="") == 6
    assert value(told, "outcomes_total", status="failed", code="ENGINE_BAD_PARAMETERS") == 1
    assert value(told, "broker_up") == value(told, "consumer_connected") == 1
    assert value(told, "queue_messages", state="waiting") == 0
    assert value(told, "fleet_keys_held") == 1
    assert value(told, "announcement_end_timestamp_seconds") > time.time()
    assert b'mode="evaluation"' in told

    # Not ready while the broker is away, alive all the same; ready again by itself.
    watched.server.end(signal.SIGTERM)
    until(lambda: json.loads(get(port, "/readyz")[1])["checks"]["broker"] is False)
    assert get(port, "/healthz")[0] == 200
    watched.server.start()
    until(lambda: get(port, "/readyz")[0] == 200, about=lambda: get(port, "/readyz")[1])

    worker.signal(signal.SIGTERM)
    assert worker.end() == 0
    assert get(port, "/healthz")[0] == 0
    raw = CANARY.encode()
    plain = {line for line in worker.text.splitlines() if not line.startswith("{")}
    assert plain <= {"", "worker: Warm shutdown (MainProcess)"}  # Celery's own, on standard output
    lines = [json.loads(line) for line in worker.text.splitlines() if line.startswith("{")]
    assert all(line.keys() <= {"time", "level", "logger", "event", *FIELDS} for line in lines)
    assert {"ready", "answered", "a job ended", "stopped"} <= {line["event"] for line in lines}
    for leak in (CANARY, raw.hex(), base64.b64encode(raw).decode()[:20]):
        assert leak not in worker.text
        assert leak not in told.decode()
