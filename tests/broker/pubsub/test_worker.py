"""Workers on Pub/Sub as processes: what a fault does to a message, and what a worker may not do."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc  # type: ignore[import-untyped]
import pytest

from ephemeralml.broker_config import BrokerSettings
from ephemeralml.broker_config.carriers import carrier_of
from ephemeralml.broker_config.pubsub.calls import MAX_PULLED, calls_of, pulled
from ephemeralml.broker_config.pubsub.names import Names

from ...servers.cut import line_to
from ...servers.pstest import Server, pstest, settings_of
from .stand import answered, deliveries, log_of, started, submit, until, worker

LEASE_S = 2


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A fake in which every lease is short."""
    with pstest(tmp_path, ack_deadline_s=LEASE_S) as running:
        yield running


@pytest.fixture
def settings(server: Server) -> BrokerSettings:
    """Settings under which the queue of the pool ``p`` exists."""
    made = settings_of(server.admin, visibility_timeout_s=LEASE_S)
    carrier_of(made).create(made, ["p"])
    return made


def through(settings: BrokerSettings, endpoint: str) -> BrokerSettings:
    """Return the same queues by another way."""
    return settings.model_copy(update={"pubsub_endpoint": endpoint})


def left(settings: BrokerSettings) -> int:
    """Take what waits in the queue, and return how many there were."""
    call = calls_of(settings).pull(Names.of(settings).subscription("jobs.p"), MAX_PULLED)
    try:
        return len(call.result(timeout=LEASE_S + 0.5).received_messages)
    except grpc.FutureTimeoutError:
        return 0
    finally:
        call.cancel()


def test_a_worker_answers_without_any_administrative_right(
    server: Server, settings: BrokerSettings, tmp_path: Path
) -> None:
    own = through(settings, server.data)
    before = server.calls("admin").total()
    submit(own, b"ok:1", b"ok:2")
    with worker(own, tmp_path):
        until(lambda: sorted(answered(tmp_path)) == ["ok:1", "ok:2"])
    assert set(server.calls("data")) == {"Publish", "Pull", "Acknowledge", "TestIamPermissions"}
    assert server.calls("admin").total() == before
    assert left(settings) == 0


def test_contents_are_not_logged_and_failures_are_told_apart(
    settings: BrokerSettings, tmp_path: Path
) -> None:
    submit(settings, b"fail:CANARY", b"later:CANARY", b"ok:CANARY")
    with worker(settings, tmp_path):
        until(lambda: sorted(answered(tmp_path)) == ["later:CANARY", "ok:CANARY"])
    assert deliveries(tmp_path) == {"ok:CANARY": 1, "later:CANARY": 2}
    assert started(tmp_path)["fail:CANARY"] == 1
    log = log_of(tmp_path)
    assert "UNEXPECTED:ValueError" in log
    assert "NOT_NOW" in log
    assert "CANARY" not in log
    assert b"CANARY".hex() not in log


def test_a_killed_worker_s_message_comes_again(settings: BrokerSettings, tmp_path: Path) -> None:
    submit(settings, b"die:1")
    with worker(settings, tmp_path) as first:
        assert first.wait(60) == -signal.SIGKILL
    with worker(settings, tmp_path):
        until(lambda: answered(tmp_path) == ["die:1"])
    assert deliveries(tmp_path) == {"die:1": 2}


def test_a_long_job_stays_with_its_worker(settings: BrokerSettings, tmp_path: Path) -> None:
    message = f"slow:{LEASE_S * 2.5}:1"
    submit(settings, message.encode())
    with worker(settings, tmp_path), worker(settings, tmp_path):
        until(lambda: answered(tmp_path) == [message])
    assert started(tmp_path)[message] == 1
    assert left(settings) == 0


def test_a_job_beyond_the_longest_lease_is_left_to_others(settings: BrokerSettings, tmp_path: Path) -> None:
    message = f"slow:{LEASE_S * 4}:1"
    submit(settings, message.encode())
    short = settings.model_copy(update={"max_lease_s": 1.0})
    short = BrokerSettings(
        **{name: getattr(short, name) for name in {*short.model_fields_set, "max_lease_s"}}
    )
    with worker(short, tmp_path), worker(short, tmp_path):
        until(lambda: started(tmp_path)[message] >= 2)


def test_a_stopping_worker_finishes_what_it_has_and_takes_no_more(
    settings: BrokerSettings, tmp_path: Path
) -> None:
    submit(settings, b"slow:1.5:1")
    with worker(settings, tmp_path) as process:
        until(lambda: started(tmp_path).total() == 1)
        process.send_signal(signal.SIGTERM)
        submit(settings, b"ok:2")
        assert process.wait(60) == 0
    assert answered(tmp_path) == ["slow:1.5:1"]
    assert left(settings) == 1


def test_a_stopping_worker_gives_back_what_it_could_not_finish(
    server: Server, settings: BrokerSettings, tmp_path: Path
) -> None:
    submit(settings, b"later:1")
    with worker(settings, tmp_path) as process:
        until(lambda: "NOT_NOW" in log_of(tmp_path))
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(60) == 0
    assert left(settings) == 1


def test_two_workers_share_a_queue_and_run_nothing_twice(settings: BrokerSettings, tmp_path: Path) -> None:
    messages = [f"slow:0.05:{number}" for number in range(40)]
    submit(settings, *(message.encode() for message in messages))
    with worker(settings, tmp_path, concurrency=2), worker(settings, tmp_path, concurrency=2):
        until(lambda: sorted(answered(tmp_path)) == sorted(messages))
    assert set(started(tmp_path).values()) == {1}


def test_an_outage_loses_nothing_and_ends_no_worker(
    server: Server, settings: BrokerSettings, tmp_path: Path
) -> None:
    with line_to(server.data) as line, ExitStack() as stack:
        process = stack.enter_context(worker(through(settings, line.address), tmp_path))
        submit(settings, b"slow:1:1")
        until(lambda: started(tmp_path).total() == 1)
        line.cut()
        submit(settings, b"ok:2")
        until(lambda: answered(tmp_path) == ["slow:1:1"])
        until(lambda: "the broker gives no messages" in log_of(tmp_path))
        line.mend()
        until(lambda: answered(tmp_path)[-1] == "ok:2")
        assert process.poll() is None
    assert set(answered(tmp_path)) == {"slow:1:1", "ok:2"}
    assert left(settings) == 0


@pytest.mark.parametrize("door", ["admin", "data"])
def test_without_its_queue_a_worker_says_so_and_ends(server: Server, door: str, tmp_path: Path) -> None:
    unmade = settings_of(getattr(server, door))
    with worker(unmade, tmp_path) as process:
        assert process.wait(60) == os.EX_UNAVAILABLE
    log = log_of(tmp_path)
    assert "QUEUE_MISSING" in log
    assert "ephemeralml queues create" in log
    assert "Traceback" not in log
    assert not any(method.startswith("Create") for method in server.calls(door))


def test_a_host_s_garbage_harms_no_neighbour(settings: BrokerSettings, tmp_path: Path) -> None:
    calls, topic = calls_of(settings), Names.of(settings).topic("jobs.p")
    good = {"form": "1", "id": "ab" * 16}
    for data, attributes in (
        (b"", {}),
        (b"x", {"form": "1"}),
        (b"x", {**good, "task": "celery.map"}),
        (b"x", {"form": "1", "id": "not an id"}),
        (b"\xff" * 9, good),
        (b"[[1],{},{}]", good),
        (b"", good),
    ):
        calls.publish(topic, data, attributes)
    submit(settings, b"ok:neighbour")
    with worker(settings, tmp_path):
        until(lambda: answered(tmp_path) == ["ok:neighbour"])
        until(lambda: log_of(tmp_path).count("not of this system's form") >= 5)
        until(lambda: log_of(tmp_path).count("kombu.exceptions.DecodeError: ") >= 2)
    assert left(settings) == 0


def test_what_kills_every_worker_ends_with_pubsub_itself_at_last(settings: BrokerSettings) -> None:
    calls, names = calls_of(settings), Names.of(settings)
    submit(settings, b"poison")
    jobs, dead = names.subscription("jobs.p"), names.subscription("dead.p")
    for attempt in range(1, 101):
        (item,) = pulled(calls.pull(jobs, 1))
        assert item.delivery_attempt == attempt
        calls.lease(jobs, [item.ack_id], 0)
    waiting = calls.pull(jobs, 1)
    (kept,) = pulled(calls.pull(dead, 1))
    waiting.cancel()
    assert b"poison" in kept.message.data
    assert set(kept.message.attributes) == {"form", "id"}
