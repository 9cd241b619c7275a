"""Whole pipelines with MiniLM: sealed jobs in packs of 32, the same texts by plain Celery, the raw engine.

``drain``: the queue is filled while the worker is stopped, then the time until the last answer lies in Redis.
``whole``: client, Redis and worker at work together. Twice: with all sharing all cores, and apart, with the
worker (one thread) on the last core and everything else on the others. The best of the rounds counts.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from celery import Celery

from ephemeralml.broker_config.redis.client import redis_client
from ephemeralml.producer.client import Client
from ephemeralml.producer.inputs import InputItem
from ephemeralml.producer.lab import POOL, Lab
from ephemeralml.producer.session import Session
from ephemeralml.producer.ticket import Ticket

from ..delivery import brokers
from ..delivery.brokers import Broker
from ..delivery.nursery import Worker
from ..delivery.site import Site, site
from .engines import Runner
from .load import plain_environment, stopped, until
from .workload import BATCH, ROOT, TOKENS, model_folder, texts_of

PACKS: Final = 16
ROUNDS: Final = 3
LATENCY_JOBS: Final = 40
PATIENCE_S: Final = 120
Rates = dict[str, float]


@contextmanager
def on_cores(cores: set[int]) -> Iterator[None]:
    """Let what is started meanwhile run on these cores only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Sealed:
    """Sealed jobs to one worker."""

    def __init__(self, place: Site, worker: Worker, texts: list[str]) -> None:
        self.place, self.worker, self.texts = place, worker, texts
        self.client: Client = place.client()

    def plan(self) -> Ticket:
        """Seal all jobs, one text each, in packs of 32."""
        items = [InputItem(str(number), (text,)) for number, text in enumerate(self.texts * PACKS)]
        path = self.place.folder / f"{secrets.token_hex(4)}.ticket"
        return self.client.plan(self.client.trust_pool(POOL), items, path, pack_jobs=BATCH)

    def drain(self) -> float:
        """Return jobs per second that the worker makes of a full queue."""
        with self.plan() as ticket, redis_client(self.place.broker.settings) as redis:
            with stopped([self.worker.pid]):
                self.client.push(ticket)
                began = time.perf_counter()
            until(lambda: int(redis.llen(ticket.head.reply_to)) >= PACKS)
            return BATCH * PACKS / (time.perf_counter() - began)

    def whole(self) -> float:
        """Return jobs per second from texts to verified vectors."""
        began = time.perf_counter()
        with self.plan() as ticket:
            self.client.push(ticket)
            good = sum(end.status == "succeeded" for end in self.client.results(ticket, PATIENCE_S))
        if good != BATCH * PACKS:
            raise SystemExit(f"{BATCH * PACKS - good} jobs did not succeed")
        return good / (time.perf_counter() - began)

    def latency(self) -> float:
        """Return the median milliseconds of one job, from its text to the verified vector."""
        times = []
        with Session(self.client, [POOL]) as session:
            for number in range(LATENCY_JOBS):
                began = time.perf_counter()
                session.ask(InputItem(str(number), (self.texts[0],)))
                times.append(time.perf_counter() - began)
        return sorted(times)[LATENCY_JOBS // 2] * 1e3


class Plain:
    """The same texts to a plain Celery worker with the same engine, 32 in a task."""

    def __init__(self, broker: Broker, threads: int, cores: set[int], texts: list[str]) -> None:
        environment = plain_environment(broker, "")
        self.app = Celery("plain", broker=environment["PLAIN_BROKER"], backend=environment["PLAIN_BACKEND"])
        self.broker, self.texts = broker, texts
        command = [sys.executable, "-m", "celery", "-A", "tests.bench.plain_engine", "worker"]
        command += ["--pool", "threads", "--concurrency", "1", "--loglevel", "ERROR", "-Q", "plain"]
        command += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        with on_cores(cores):
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **environment, "PLAIN_THREADS": str(threads)},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        self.submit().get(timeout=PATIENCE_S)

    def submit(self) -> Any:
        """Send one task of 32 texts."""
        return self.app.send_task("plain.embed", [self.texts], queue="plain")

    def drain(self) -> float:
        """Return texts per second that the worker makes of a full queue."""
        with redis_client(self.broker.settings) as redis:
            pool: Any = redis.connection_pool
            backend: Any = type(redis)(connection_pool=type(pool)(**{**pool.connection_kwargs, "db": 1}))
            backend.flushdb()
            with stopped([self.process.pid]):
                for _ in range(PACKS):
                    self.submit()
                began = time.perf_counter()
            until(lambda: int(backend.dbsize()) >= PACKS)
            return BATCH * PACKS / (time.perf_counter() - began)

    def whole(self) -> float:
        """Return texts per second from texts to vectors."""
        began = time.perf_counter()
        answers = [self.submit() for _ in range(PACKS)]
        for answer in answers:
            answer.get(timeout=PATIENCE_S)
        return BATCH * PACKS / (time.perf_counter() - began)

    def end(self) -> None:
        """End the worker."""
        self.process.kill()
        self.process.wait()


def measured(lab: Lab, folder: Path, threads: int, worker_cores: set[int], other_cores: set[int]) -> Rates:
    """Return the best rates of one placement."""
    texts = texts_of(TOKENS, BATCH)
    engine = {"EPHEMERALML_WORKER_BACKEND": "openvino", "EPHEMERALML_WORKER_THREADS": str(threads)}
    best: Rates = {}
    with (
        on_cores(other_cores),
        brokers.redis(folder / "broker") as broker,
        site(lab, broker, folder / "site", **engine) as place,
    ):
        with on_cores(worker_cores):
            worker = place.worker_of_its_own()
            raw = Runner("ours", threads)
        plain = Plain(broker, threads, worker_cores, texts)
        sealed = Sealed(place, worker.ready(), texts)
        acts = {
            "raw engine": lambda: BATCH * PACKS / raw.best([texts] * PACKS, 1),
            "plain, drain": plain.drain,
            "sealed, drain": sealed.drain,
            "plain, whole": plain.whole,
            "sealed, whole": sealed.whole,
        }
        try:
            for _ in range(ROUNDS):
                for name, act in acts.items():
                    idle = [plain.process.pid] if name.startswith(("raw", "sealed")) else []
                    idle += [worker.pid] if name.startswith(("raw", "plain")) else []
                    with stopped(idle):
                        best[name] = max(best.get(name, 0.0), act())
            best["sealed, one job alone, ms"] = sealed.latency()
            best["worker, MiB"] = _resident(worker.pid)
        finally:
            raw.end()
            plain.end()
        worker.signal(signal.SIGTERM)
        worker.ended()
    return best


def _resident(pid: int) -> float:
    """Return a process's resident memory in MiB (proc(5), statm: pages)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def measure() -> dict[str, Any]:
    """Return the rates of each placement that this machine allows."""
    cores = sorted(os.sched_getaffinity(0))
    placements = {"shared": (len(cores), set(cores), set(cores))}
    if len(cores) > 1:
        placements["apart"] = (1, {cores[-1]}, set(cores[:-1]))
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lab = Lab.create(folder / "lab")
        with lab.kms():
            lab.package(model_folder()[0])
            for placement, (threads, worker, others) in placements.items():
                found[placement] = measured(lab, folder / placement, threads, worker, others)
                print(f"pipeline: {placement} measured", flush=True)
    return found


def share(found: dict[str, Any], placement: str, of: str, to: str) -> float:
    """Return one rate of a placement beside another."""
    return float(found[placement][of] / found[placement][to])


def table(found: dict[str, Any]) -> str:
    """Return the Markdown table."""
    heads = {"shared": "all cores shared", "apart": "worker on a core of its own"}
    found = {placement: found[placement] for placement in heads if placement in found}
    lines = ["| " + " | ".join(["pipeline", *(f"{heads[p]}, texts/s | of raw" for p in found)]) + " |"]
    lines.append("|---|" + "---:|---:|" * len(found))
    for name in ("raw engine", "plain, drain", "sealed, drain", "plain, whole", "sealed, whole"):
        cells = [name]
        for placement, rates in found.items():
            cells += [f"{rates[name]:.0f}", f"{share(found, placement, name, 'raw engine'):.1%}"]
        lines.append("| " + " | ".join(cells) + " |")
    alone = ", ".join(f"{rates['sealed, one job alone, ms']:.1f} ms ({p})" for p, rates in found.items())
    memory = max(rates["worker, MiB"] for rates in found.values())
    lines += ["", f"One sealed job alone, from its text to the verified vector: {alone}. "]
    lines[-1] += f"The worker's memory after all this: {memory:.0f} MiB."
    return "\n".join(lines)
