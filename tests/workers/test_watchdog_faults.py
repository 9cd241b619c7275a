"""Consumers that stop consuming, as processes, on a real Redis behind a network that forgets."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ephemeralml.broker_config import BrokerSettings, broker_settings
from ephemeralml.broker_config.health import depth
from ephemeralml.broker_config.redis.client import redis_client
from ephemeralml.broker_config.redis.embedded import find_server
from ephemeralml.broker_config.submit import Submitter
from ephemeralml.wire.errors import DeliveryError
from ephemeralml.wire.exit_codes import UNAVAILABLE

from ..broker.conftest import free_port
from ..way.fleet import Forked, Zygote
from .proxy import Proxy

AFTER = 1.5
VISIBILITY = "3"


@dataclass
class Site:
    """A Redis, a proxy in front of it, and workers that know the proxy only."""

    folder: Path
    port: int
    server: subprocess.Popen[bytes]
    broker: BrokerSettings
    proxy: Proxy
    zygote: Zygote
    workers: list[Forked] = field(default_factory=list)

    def worker(self, slots: int = 1, after_s: float = AFTER) -> Forked:
        """Start a worker; return when it consumes."""
        arguments = [f"redis://127.0.0.1:{self.proxy.port}/0", str(self.folder), str(after_s), str(slots)]
        own = {"EPHEMERALML_VISIBILITY_TIMEOUT_S": VISIBILITY, "EPHEMERALML_OPERATION_TIMEOUT_S": "5"}
        log = self.folder / "log"
        pid = self.zygote.ask(
            module="tests.workers.watched_worker",
            arguments=arguments,
            environment={**os.environ, **own},
            log=str(log),
        )
        worker = Forked(self.zygote, pid, log)
        self.workers.append(worker)
        self.submit(f"hello {len(self.workers)}")
        self.until(lambda: f"hello {len(self.workers)}" in self.answered)
        self.until(lambda: depth(self.broker, "p").in_flight == 0)
        return worker

    def submit(self, *messages: str) -> None:
        """Submit past the proxy."""
        with Submitter(self.broker) as submitter:
            for message in messages:
                submitter.submit("p", message.encode())

    @property
    def answered(self) -> list[str]:
        """What workers have answered."""
        out = self.folder / "out"
        return out.read_text().splitlines() if out.exists() else []

    @property
    def log(self) -> str:
        """What workers have printed."""
        return (self.folder / "log").read_text()

    def until(self, true: Callable[[], bool], seconds: float = 45) -> None:
        """Wait until something is true."""
        deadline = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < deadline, f"waited too long; log:\n{self.log}"
            time.sleep(0.05)


@contextmanager
def running(folder: Path, zygote: Zygote) -> Iterator[Site]:
    port = free_port()
    with Proxy(port) as proxy:
        server = redis_server(folder, port)
        site = Site(
            folder, port, server, broker_settings(broker_url=f"redis://127.0.0.1:{port}/0"), proxy, zygote
        )
        try:
            site.until(lambda: answers(site.broker))
            yield site
        finally:
            for worker in site.workers:
                if worker.poll() is None:
                    worker.signal(signal.SIGKILL)
                    worker.end()
            site.server.kill()
            site.server.wait()


def redis_server(folder: Path, port: int) -> subprocess.Popen[bytes]:
    command = [
        find_server(),
        "--dir",
        str(folder),
        "--save",
        "",
        "--appendonly",
        "yes",
        "--bind",
        "127.0.0.1",
    ]
    return subprocess.Popen([*command, "--port", str(port)], stdout=subprocess.DEVNULL)


def answers(broker: BrokerSettings) -> bool:
    try:
        depth(broker, "p")
    except DeliveryError:
        return False
    return True


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    made = Zygote()
    yield made
    made.close()


@pytest.fixture
def site(tmp_path: Path, zygote: Zygote) -> Iterator[Site]:
    (tmp_path / "log").touch()
    with running(tmp_path, zygote) as site:
        yield site


def test_a_connection_that_the_network_forgot_is_made_anew(site: Site) -> None:
    worker = site.worker()
    assert site.proxy.swallow()
    site.submit("after")
    site.until(lambda: "after" in site.answered)
    assert "watchdog: the consumer is starving: restarting it" in site.log
    assert worker.poll() is None


def test_a_lost_acknowledgement_costs_neither_slot_nor_lease(site: Site) -> None:
    """Without any watchdog: the broker is away at the moment when the only slot's message is acknowledged."""
    worker = site.worker(after_s=3600)
    site.submit("sleep:2")
    site.until(lambda: depth(site.broker, "p").in_flight == 1)
    site.server.kill()
    site.server.wait()
    site.until(lambda: "sleep:2" in site.answered)
    site.server = redis_server(site.folder, site.port)
    site.until(lambda: answers(site.broker))
    site.submit("after")
    site.until(lambda: "after" in site.answered)
    site.until(lambda: depth(site.broker, "p").in_flight == 0)
    assert worker.poll() is None


def test_a_lost_acknowledgement_on_a_dead_connection_does_not_cost_a_slot_for_good(site: Site) -> None:
    worker = site.worker()
    site.submit("sleep:2")
    site.until(lambda: depth(site.broker, "p").in_flight == 1)
    site.proxy.swallow()
    site.until(lambda: "sleep:2" in site.answered)
    site.submit("after")
    site.until(lambda: "after" in site.answered)
    assert worker.poll() is None


def test_a_loop_that_hangs_ends_the_process_and_another_worker_goes_on(site: Site) -> None:
    worker = site.worker()
    site.submit("hang")
    site.until(lambda: worker.poll() is not None)
    assert worker.poll() == UNAVAILABLE
    assert "error CONSUMER_HUNG: " in site.log
    site.submit("next")
    site.worker()
    site.until(lambda: "next" in site.answered)


def test_a_paused_broker_is_waited_for(site: Site) -> None:
    worker = site.worker()
    site.server.send_signal(signal.SIGSTOP)
    time.sleep(4 * AFTER)
    site.server.send_signal(signal.SIGCONT)
    site.submit("after")
    site.until(lambda: "after" in site.answered)
    assert worker.poll() is None
    assert "watchdog" not in site.log


def test_long_jobs_are_left_alone(site: Site) -> None:
    worker = site.worker()
    site.submit(f"sleep:{4 * AFTER}", "waiting")
    site.until(lambda: "waiting" in site.answered)
    assert "watchdog" not in site.log
    assert worker.poll() is None
    assert site.answered.count(f"sleep:{4 * AFTER}") == 1


def test_clients_held_up_by_the_server_are_left_alone(site: Site) -> None:
    """CLIENT PAUSE holds all clients' commands up, the lookout's too."""
    worker = site.worker()
    with redis_client(site.broker) as client:
        client.client_pause(int(3 * AFTER * 1000))
    site.submit("after")
    site.until(lambda: "after" in site.answered)
    assert worker.poll() is None
    assert "error CONSUMER" not in site.log
