"""Workers on SQS as processes: what a fault does to a message, and what a worker may not do."""

from __future__ import annotations

import json
import os
import signal
from contextlib import ExitStack
from pathlib import Path

from pydantic import SecretStr

from ephemeralml.broker_config import BrokerSettings
from ephemeralml.broker_config.carriers import carrier_of
from ephemeralml.broker_config.sqs.calls import calls_of
from ephemeralml.broker_config.sqs.names import queue_name

from ...servers.cut import line_to
from ...servers.moto import Server, settings_of, varied
from ..pubsub.stand import answered, deliveries, log_of, started, submit, until
from .stand import left, worker

LEASE_S = 2


def test_a_worker_answers_with_the_rights_of_its_role_and_no_more(
    server: Server, settings: BrokerSettings, tmp_path: Path
) -> None:
    key_id = f"WORKER{settings.sqs_prefix.strip('-').upper()}"
    submit(settings, b"ok:1", b"ok:2")
    with worker(varied(settings, sqs_access_key_id=SecretStr(key_id)), tmp_path) as process:
        until(lambda: sorted(answered(tmp_path)) == ["ok:1", "ok:2"] and left(settings) == (0, 0))
        # Its queue is deleted: no message will ever come again.
        calls_of(settings).delete(queue_name(settings, "jobs.p"))
        assert process.wait(60) == os.EX_UNAVAILABLE
    assert "QUEUE_MISSING" in log_of(tmp_path)
    assert deliveries(tmp_path) == {"ok:1": 1, "ok:2": 1}
    called = {action.removesuffix("Batch") for action in server.actions()[key_id]}
    policy = json.loads(carrier_of(settings).rights(settings, "worker"))
    allowed = {action.removeprefix("sqs:") for one in policy["Statement"] for action in one["Action"]}
    assert {"ReceiveMessage", "DeleteMessage"} <= called <= allowed
    assert "CreateQueue" not in allowed


def test_contents_are_not_logged_failures_told_apart_and_junk_is_dropped(
    settings: BrokerSettings, tmp_path: Path
) -> None:
    name = queue_name(settings, "jobs.p")
    malformed = ("{", "x" * 100_000, "1 - eA==", f"1 {'0' * 32} !", '{"headers": {"task": "x"}}')
    for text in malformed:
        calls_of(settings).send(name, text)
    submit(settings, b"fail:CANARY", b"later:CANARY", b"ok:CANARY")
    with worker(settings, tmp_path):
        until(lambda: sorted(answered(tmp_path)) == ["later:CANARY", "ok:CANARY"])
        until(lambda: left(settings) == (0, 0))
    assert deliveries(tmp_path) == {"ok:CANARY": 1, "later:CANARY": 2}
    assert started(tmp_path)["fail:CANARY"] == 1
    log = log_of(tmp_path)
    assert log.count("a message was dropped") == len(malformed)
    assert "UNEXPECTED:ValueError" in log
    assert "NOT_NOW" in log
    for trace in ("CANARY", b"CANARY".hex(), "Q0FOQVJZ", "secret"):
        assert trace not in log


def test_a_killed_worker_s_message_comes_again(settings: BrokerSettings, tmp_path: Path) -> None:
    submit(settings, b"die:1")
    with worker(settings, tmp_path) as first:
        assert first.wait(60) == -signal.SIGKILL
    with worker(settings, tmp_path):
        until(lambda: answered(tmp_path) == ["die:1"])
    assert deliveries(tmp_path) == {"die:1": 2}


def test_two_workers_run_nothing_twice_however_long_it_takes(
    settings: BrokerSettings, tmp_path: Path
) -> None:
    long = f"slow:{LEASE_S * 2.5}:1"
    messages = [long, *(f"slow:0.05:{number}" for number in range(8))]
    submit(settings, *(message.encode() for message in messages))
    with worker(settings, tmp_path), worker(settings, tmp_path):
        until(lambda: sorted(answered(tmp_path)) == sorted(messages))
        until(lambda: left(settings) == (0, 0))
    assert set(started(tmp_path).values()) == {1}
    assert set(deliveries(tmp_path).values()) == {1}


def test_a_stopping_worker_finishes_what_it_has_and_takes_no_more(
    settings: BrokerSettings, tmp_path: Path
) -> None:
    long = varied(settings, visibility_timeout_s=600)  # what a receive under way takes must come back at once
    submit(long, b"slow:2:1")
    with worker(long, tmp_path) as process:
        until(lambda: started(tmp_path).total() == 1)
        process.send_signal(signal.SIGTERM)
        submit(long, b"ok:2")
        assert process.wait(60) == 0
    assert answered(tmp_path) == ["slow:2:1"]
    assert left(long) == (1, 0)


def test_an_outage_loses_nothing_and_ends_no_worker(
    server: Server, settings: BrokerSettings, tmp_path: Path
) -> None:
    with line_to(server.address) as line, ExitStack() as stack:
        way = varied(settings, sqs_endpoint=f"http://{line.address}", visibility_timeout_s=60)
        process = stack.enter_context(worker(way, tmp_path))
        submit(settings, b"slow:1:1")
        until(lambda: started(tmp_path).total() == 1)
        line.cut()
        submit(settings, b"ok:2")
        until(lambda: answered(tmp_path) == ["slow:1:1"])
        until(lambda: "the broker gives no messages" in log_of(tmp_path))
        line.mend()
        until(lambda: answered(tmp_path)[-1] == "ok:2")
        assert process.poll() is None
    assert answered(tmp_path) == ["slow:1:1", "ok:2"]
    assert left(settings) == (0, 0)


def test_without_its_queue_a_worker_says_so_and_ends(server: Server, tmp_path: Path) -> None:
    unmade = settings_of(server.url, sqs_access_key_id=SecretStr("UNMADE"))
    with worker(unmade, tmp_path) as process:
        assert process.wait(60) == os.EX_UNAVAILABLE
    log = log_of(tmp_path)
    assert "QUEUE_MISSING" in log
    assert "ephemeralml queues create" in log
    assert "Traceback" not in log
    assert server.actions()["UNMADE"] == {"GetQueueUrl"}
