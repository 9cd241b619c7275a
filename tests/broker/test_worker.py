from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ephemeralml.broker_config import BrokerSettings, depth
from ephemeralml.broker_config.redis.client import redis_client
from ephemeralml.broker_config.submit import Submitter

ROOT = Path(__file__).parents[2]
CANARY = "CANARY-91aa"


@contextmanager
def worker(broker: BrokerSettings, folder: Path, visibility: int = 2) -> Iterator[subprocess.Popen[bytes]]:
    """Run the test's worker; its log is ``folder/log``."""
    command = [sys.executable, "-m", "tests.broker.worker_process", broker.url, "p", str(visibility)]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen([*command, str(folder / "out")], cwd=ROOT, stdout=log, stderr=log)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def answered(folder: Path) -> list[str]:
    out = folder / "out"
    return [bytes.fromhex(line).decode() for line in out.read_text().split()] if out.exists() else []


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def leases(broker: BrokerSettings) -> int:
    with redis_client(broker) as client:
        return int(client.hlen("unacked.jobs.p"))


def test_a_worker_logs_no_contents_and_loses_nothing(broker: BrokerSettings, tmp_path: Path) -> None:
    with Submitter(broker) as submitter:
        for message in (f"fail:{CANARY}", f"later:{CANARY}", f"ok:{CANARY}"):
            submitter.submit("p", message.encode())
    with worker(broker, tmp_path):
        until(lambda: len(answered(tmp_path)) == 2)
        until(lambda: leases(broker) == 0)
    assert answered(tmp_path) == [f"ok:{CANARY}", f"later:{CANARY}"]
    assert depth(broker, "p").waiting == 0
    log = (tmp_path / "log").read_text()
    assert "UNEXPECTED:ValueError" in log
    assert "NOT_NOW" in log
    for leak in (CANARY, CANARY.encode().hex(), "a-secret-password"):
        assert leak not in log


def test_a_killed_worker_s_message_is_delivered_again(broker: BrokerSettings, tmp_path: Path) -> None:
    with Submitter(broker) as submitter:
        submitter.submit("p", b"die:1")
        submitter.submit("p", b"ok:2")
    with worker(broker, tmp_path) as first:
        assert first.wait(30) == -signal.SIGKILL
    with worker(broker, tmp_path):
        until(lambda: sorted(answered(tmp_path)) == ["die:1", "ok:2"])
        until(lambda: leases(broker) == 0)


def test_a_stopping_worker_gives_back_what_it_did_not_finish(broker: BrokerSettings, tmp_path: Path) -> None:
    with Submitter(broker) as submitter:
        submitter.submit("p", b"later:1")
    with worker(broker, tmp_path, visibility=3600) as process:
        until(lambda: leases(broker) == 1)
        until(lambda: "NOT_NOW" in (tmp_path / "log").read_text())
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(15) == 0
    left = depth(broker, "p")
    assert (left.waiting, left.in_flight) in {(1, 0), (0, 1)}


def test_a_host_s_garbage_harms_no_neighbour(broker: BrokerSettings, tmp_path: Path) -> None:
    with Submitter(broker) as submitter:
        submitter.submit("p", b"ok:template")
    with redis_client(broker) as client:
        good = bytes(client.rpop("jobs.p"))
        tag, ident, body = good[:37], good[37:69], good[69:]
        for raw in (
            b"",
            b"{",
            b"\xff",
            b"null",
            b"{}",
            tag,
            tag + ident,
            tag + ident + b"\xff" * 9,
            tag + ident + b"[[1],{},{}]",
            tag + b"-" * 32 + body,
            tag + b"celery.map" + ident[10:] + body,
            tag.upper() + ident + body,
            b"2" + good[1:],
            json.dumps({"body": base64.b64encode(body).decode(), "headers": {"task": "celery.map"}}),
        ):
            client.lpush("jobs.p", raw)
    with Submitter(broker) as submitter:
        submitter.submit("p", b"ok:neighbour")
    with worker(broker, tmp_path):
        until(lambda: answered(tmp_path) == ["ok:neighbour"])
        until(lambda: leases(broker) == 0)
    assert depth(broker, "p").waiting == 0
