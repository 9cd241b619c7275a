"""A fleet of real workers, forks of one process, on a real Redis that can be stopped and started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ephemeralml.broker_config.carriers import Depth
from ephemeralml.broker_config.health import depth, ping
from ephemeralml.broker_config.redis.embedded import find_server
from ephemeralml.broker_config.replies import ReplyQueue
from ephemeralml.broker_config.settings import BrokerSettings, broker_settings
from ephemeralml.producer.cli.common import make_client, read_policy
from ephemeralml.producer.client import Client
from ephemeralml.producer.inputs import InputItem
from ephemeralml.producer.judge import JobResult
from ephemeralml.producer.lab import POOL, Lab
from ephemeralml.producer.ticket import Ticket
from ephemeralml.wire.errors import DeliveryError
from ephemeralml.wire.pack import SealedReply, decode_message, decode_replies

from ..broker.conftest import free_port
from ..models.forge import tensors
from .forker import RUNNING

#: Seconds until a dead worker's messages come again.
VISIBILITY = 3


def until(true: Callable[[], bool], seconds: float = 60, about: Callable[[], str] = str) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"waited too long: {about()}"
        time.sleep(0.02)


@dataclass
class Server:
    """A Redis with an append-only file, on one port for all its lives."""

    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; return when it has read its file and answers."""
        command = [find_server(), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        command += ["--appendonly", "yes", "--save", "", "--logfile", "redis.log"]
        self.process = subprocess.Popen(command)
        until(self.answers)

    def end(self, how: signal.Signals) -> None:
        """End it."""
        assert self.process is not None
        self.process.send_signal(how)
        self.process.wait(20)

    def answers(self) -> bool:
        """Whether it does."""
        try:
            ping(self.settings)
        except DeliveryError:
            return False
        return True

    @property
    def settings(self) -> BrokerSettings:
        """How to reach it. The client's own patience is long: only leases may bring messages back."""
        return broker_settings(broker_url=f"redis://127.0.0.1:{self.port}/0").model_copy(
            update={"visibility_timeout_s": 600.0}
        )


class Zygote:
    """Forks commands of ``ephemeralml``; see :mod:`.forker`."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.way.forker"]
        self._process = subprocess.Popen(
            command, cwd=Path(__file__).parents[2], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, **request: object) -> int:
        """Send a request and return the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        """End it."""
        self._process.communicate(timeout=20)


@dataclass
class Forked:
    """A worker."""

    zygote: Zygote
    pid: int
    log: Path
    code: int | None = None

    @property
    def text(self) -> str:
        """All that it printed."""
        return self.log.read_text() if self.log.exists() else ""

    def signal(self, how: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self.pid, how)

    def poll(self) -> int | None:
        """Return its exit code, or None while it runs."""
        if self.pid and (code := self.zygote.ask(poll=self.pid)) != RUNNING:
            self.pid, self.code = 0, code
        return self.code

    def end(self) -> int:
        """Wait for its end; return its exit code, negative for a signal."""
        code = self.zygote.ask(wait=self.pid)
        self.pid = 0
        return code


@dataclass
class Fleet:
    """A laboratory, a server, workers and a client."""

    lab: Lab
    server: Server
    zygote: Zygote
    folder: Path
    workers: list[Forked] = field(default_factory=list)

    def worker(self, **more: str) -> Forked:
        """Start a worker without waiting for it."""
        log = self.folder / f"worker-{len(self.workers)}.log"
        own = {
            "EPHEMERALML_BROKER_URL": self.server.settings.url,
            "EPHEMERALML_VISIBILITY_TIMEOUT_S": str(VISIBILITY),
            "EPHEMERALML_OPERATION_TIMEOUT_S": "5",
            "EPHEMERALML_WORKER_BACKEND": "noop",
        }
        environment = {**os.environ, **self.lab.worker_environment, **own, **more}
        pid = self.zygote.ask(arguments=["worker"], environment=environment, log=str(log))
        self.workers.append(Forked(self.zygote, pid, log))
        return self.workers[-1]

    def ready(self, *workers: Forked) -> None:
        """Wait until workers' gates are open."""
        for worker in workers:
            until(lambda w=worker: "ready" in w.text, about=lambda w=worker: str(w.text))  # type: ignore[misc]

    def start(self, count: int, **more: str) -> list[Forked]:
        """Start workers and wait until their gates are open."""
        workers = [self.worker(**more) for _ in range(count)]
        self.ready(*workers)
        return workers

    @property
    def depth(self) -> Depth:
        """How full the queue is."""
        return depth(self.server.settings, POOL)

    def client(self) -> Client:
        """A client."""
        return make_client(self.server.settings, read_policy(self.lab.policy))

    def submit(self, client: Client, jobs: int, pack_jobs: int = 32) -> Ticket:
        """Seal and submit small jobs."""
        items = [InputItem(str(n), (f"Job {n}.",), {"dimensions": 4}) for n in range(jobs)]
        path = self.folder / f"ticket-{time.monotonic_ns()}"
        ticket = client.plan(client.trust_pool(POOL), items, path, pack_jobs=pack_jobs)
        client.push(ticket)
        return ticket

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold all workers, so that work piles up meanwhile."""
        for worker in self.workers:
            worker.signal(signal.SIGSTOP)
        yield
        for worker in self.workers:
            worker.signal(signal.SIGCONT)

    @property
    def about(self) -> str:
        """What all workers printed, for a test that fails."""
        return "\n".join(worker.text for worker in self.workers)


def collect(client: Client, ticket: Ticket, seconds: float = 60) -> dict[str, JobResult]:
    """Receive until every job has its end; hold the client to one end for each."""
    ends: dict[str, JobResult] = {}
    deadline = time.monotonic() + seconds
    while ticket.missing and time.monotonic() < deadline:
        try:
            for result in client.results(ticket, 5):
                # A call after a lost connection begins with what is stored already.
                assert ends.setdefault(result.custom_id, result).outcome == result.outcome
        except DeliveryError:  # the broker is away
            time.sleep(0.2)
    assert not ticket.missing
    return ends


def receive(settings: BrokerSettings, ticket: Ticket, seconds: float = 60) -> dict[str, SealedReply]:
    """Receive until every job has a reply, unjudged; the first of each job counts."""
    first: dict[str, SealedReply] = {}
    deadline = time.monotonic() + seconds
    with ReplyQueue(settings, ticket.head.reply_to) as queue:
        while len(first) < len(ticket.jobs) and time.monotonic() < deadline:
            delivery = queue.receive(0.5)
            if delivery is None:
                continue
            pack = decode_message(delivery.body)
            assert isinstance(pack, bytes)
            for reply in decode_replies(pack)[1]:
                first.setdefault(reply.job_id.hex(), reply)
            delivery.ack()
    return first


@contextmanager
def site(folder: Path) -> Iterator[tuple[Lab, Zygote]]:
    """A laboratory with a running KMS and a model of a few bytes, and what forks its workers."""
    lab = Lab.create(folder / "lab")
    zygote = Zygote()
    try:
        with lab.kms():
            source = folder / "source"
            source.mkdir()
            (source / "model.safetensors").write_bytes(tensors(a=b"weights" * 100))
            lab.package(source)
            yield lab, zygote
    finally:
        zygote.close()


@contextmanager
def fleet(lab: Lab, zygote: Zygote, folder: Path) -> Iterator[Fleet]:
    """A server of a test's own; ends every worker that the test started."""
    server = Server(folder)
    server.start()
    made = Fleet(lab, server, zygote, folder)
    try:
        yield made
    finally:
        for worker in made.workers:
            if worker.pid:
                worker.signal(signal.SIGKILL)
                worker.end()
        server.end(signal.SIGKILL)
