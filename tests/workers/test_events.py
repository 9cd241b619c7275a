"""Celery's events: nothing but what a broker sees anyway, and Flower understands them."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from hypothesis import given
from hypothesis import strategies as st

from ephemeralml.broker_config.envelope import TASK_NAME
from ephemeralml.broker_config.events import EVENTS, QuietDispatcher, fitting, send_events
from ephemeralml.broker_config.redis.client import redis_client
from ephemeralml.producer.inputs import InputItem
from ephemeralml.producer.lab import POOL

from ..broker.conftest import free_port
from ..way.fleet import Fleet, collect, fleet, site, until

CANARY = "CANARY-7f31-events"
#: As Celery 5.7 makes them.
CELERY_S: dict[str, dict[str, Any]] = {
    "task-received": {
        "uuid": "a" * 32,
        "name": CANARY,
        "args": CANARY,
        "kwargs": CANARY,
        "root_id": CANARY,
        "parent_id": None,
        "retries": 0,
        "eta": CANARY,
        "expires": None,
    },
    "task-started": {"uuid": "a" * 32},
    "task-succeeded": {"uuid": "a" * 32, "result": CANARY, "runtime": 0.123456},
    "task-failed": {"uuid": "a" * 32, "exception": CANARY, "traceback": CANARY},
    "worker-heartbeat": {"freq": 2.0, "active": 1, "processed": 7, "loadavg": (1, 2, 3), "sw_sys": "Linux"},
}


@pytest.mark.parametrize("kind", CELERY_S)
def test_events_hold_no_contents(kind: str) -> None:
    found = fitting(kind, CELERY_S[kind])
    assert found is not None
    assert CANARY not in json.dumps(found)
    assert found.keys() <= EVENTS[kind]
    assert "runtime" not in found


@given(
    st.sampled_from([*EVENTS, "task-sent", "task-retried", "task-rejected", "x"]),
    st.dictionaries(st.text(max_size=12), st.text(max_size=5)),
)
def test_only_events_and_fields_of_the_closed_sets_are_sent(kind: str, fields: dict[str, str]) -> None:
    found = fitting(kind, fields)
    assert (found is None) == (kind not in EVENTS)
    assert found is None or found.keys() <= EVENTS[kind]


class Caught(QuietDispatcher):
    """Keeps what would be published."""

    caught: list[tuple[Any, str]]

    def _publish(self, event: Any, producer: Any, routing_key: str, **_: Any) -> None:
        self.caught.append((event, routing_key))


@pytest.mark.parametrize("buffered", [False, True])
def test_the_dispatcher_sends_no_more_than_that(buffered: bool) -> None:
    app = Celery("t", broker="memory://", set_as_current=False)
    assert send_events(app) == {"task_events": True, "without_heartbeat": False}
    assert issubclass(app.events.Dispatcher, QuietDispatcher)
    dispatcher = Caught(
        app.connection_for_write(), hostname="w", app=app, buffer_group=["task"] if buffered else None
    )
    dispatcher.caught = []
    for kind, fields in CELERY_S.items():
        dispatcher.send(kind, **fields)
        dispatcher.publish(kind, dict(fields), dispatcher.producer)
    dispatcher.send("task-sent", uuid="x", args=CANARY)
    dispatcher.flush()
    assert dispatcher.caught
    text = json.dumps(dispatcher.caught)
    assert CANARY not in text
    assert '"pid": 0' in text
    assert f'"pid": {os.getpid()}' not in text


# ------------------------------------------------------------------------------------- Flower


@contextmanager
def flower(url: str, folder: Path) -> Iterator[int]:
    """Run Flower as an operator would; yield its port."""
    port = free_port()
    command = [sys.executable, "-m", "celery", f"--broker={url}", "flower"]
    command += [f"--port={port}", "--address=127.0.0.1", "--enable_events=false"]
    own = {"FLOWER_UNAUTHENTICATED_API": "true", "PYTHONWARNINGS": "ignore"}
    with (folder / "flower.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=log, env={**os.environ, **own}, start_new_session=True
        )
    try:
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def get(port: int, path: str) -> str:
    """Fetch a page, "" where it is not there."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
            return str(answer.read().decode())
    except (urllib.error.HTTPError, OSError):
        return ""


#: What docs/observability.md gives the monitor: events, and to ask workers for a sign, which none answers.
MONITOR = (
    "user monitor on >monitor-s-password resetkeys ~celeryev.* ~_kombu.binding.celeryev* "
    "~_kombu.binding_permanent.celeryev* ~_kombu.binding_deadlines resetchannels &/0.celeryev/* "
    "&/0.celery.pidbox "
    "-@all +@connection +psubscribe +punsubscribe +subscribe +unsubscribe +multi +exec +llen +del +sadd "
    "+srem +smembers +publish +zadd +zrem +zrangebyscore +time +eval +evalsha +script|load +script|exists"
)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("watched")
    with site(folder) as (lab, zygote), fleet(lab, zygote, folder) as made:
        yield made


def test_flower_shows_workers_and_tasks_and_no_contents(watched: Fleet, tmp_path: Path) -> None:
    with redis_client(watched.server.settings) as client:
        client.execute_command("ACL", "SETUSER", *MONITOR.split()[1:])
    url = f"redis://monitor:monitor-s-password@127.0.0.1:{watched.server.port}/0"
    with flower(url, tmp_path) as port:
        until(lambda: get(port, "/healthcheck") == "OK", about=(tmp_path / "flower.log").read_text)
        (worker,) = watched.start(1, EPHEMERALML_WORKER_EVENTS="true")
        client = watched.client()
        items = [InputItem(str(n), (CANARY,), {"dimensions": 4}) for n in range(8)]
        with client.plan(client.trust_pool(POOL), items, tmp_path / "t", pack_jobs=4) as ticket:
            client.push(ticket)
            collect(client, ticket)

        def tasks() -> dict[str, Any]:
            found: dict[str, Any] = json.loads(get(port, "/api/tasks") or "{}")
            return {name: task for name, task in found.items() if task["state"] == "SUCCESS"}

        log = tmp_path / "flower.log"
        until(lambda: len(tasks()) == 2, about=lambda: log.read_text() + get(port, "/api/tasks"))
        shown = tasks()
        assert {task["name"] for task in shown.values()} == {TASK_NAME}
        for task in shown.values():
            assert not task["args"]
            assert not task["kwargs"]
            assert not task["result"]
            assert task["runtime"] is None
        workers = json.loads(get(port, "/workers?json=1"))["data"]
        assert [row["status"] for row in workers] == [True]
        pages = get(port, "/workers?json=1") + get(port, "/tasks") + json.dumps(shown)
        pages += "".join(get(port, f"/api/task/info/{name}") + get(port, f"/task/{name}") for name in shown)
    raw = CANARY.encode()
    for leak in (CANARY, raw.hex(), base64.b64encode(raw).decode()[:16]):
        assert leak not in pages
        assert leak not in log.read_text()
        assert leak not in worker.text
