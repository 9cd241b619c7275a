"""Jobs per second and latency, beside a plain Celery task of the same payload on the same broker.

Run by ``python -m tests.bench.load [--broker NAME] [--workers 1 2 4] [--jobs N] [--memory JOBS]``. The
engine computes nothing, so what is measured is delivery, sealing and receipts. ``drain`` (Redis only): the
queue is filled while the workers are stopped; then the time until the last reply lies in its queue (plain:
until the last result lies in the backend). ``whole``: with the client sealing, submitting, collecting and
verifying beside the workers on the same cores (plain: with the client submitting and fetching). Latency: one
job after another.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import platform
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from ephemeralml.broker_config.redis.client import redis_client
from ephemeralml.producer.client import Client
from ephemeralml.producer.inputs import InputItem
from ephemeralml.producer.lab import POOL
from ephemeralml.producer.session import Session
from ephemeralml.producer.ticket import Ticket

from ..delivery import brokers
from ..delivery.brokers import BROKERS, Broker
from ..delivery.nursery import Worker
from ..delivery.site import Site, laboratory, site

ROOT: Final = Path(__file__).resolve().parents[2]
#: A text that makes a sealed job of about 2 KiB (padded).
TEXT: Final = "x" * 1700
PAYLOAD: Final = base64.b64encode(os.urandom(2048)).decode()
CONCURRENCY: Final = "1"
LATENCY_JOBS: Final = 100
PATIENCE_S: Final = 300


@dataclass
class Row:
    """One line of the table."""

    what: str
    workers: int
    drain: float | None = None
    whole: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None


def until(done: Callable[[], bool]) -> None:
    """Return once ``done``."""
    deadline = time.monotonic() + PATIENCE_S
    while not done():
        if time.monotonic() > deadline:
            raise SystemExit("the workers do not get on")
        time.sleep(0.01)


@contextmanager
def stopped(pids: list[int]) -> Iterator[None]:
    """Hold processes still meanwhile."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def quantiles(times: list[float]) -> tuple[float, float]:
    """Return the median and the 99th percentile, in milliseconds."""
    return statistics.median(times) * 1000, statistics.quantiles(times, n=100)[98] * 1000


# --------------------------------------------------------------------------------- sealed


class Sealed:
    """Sealed jobs through our client and workers."""

    def __init__(self, place: Site, pack_jobs: int) -> None:
        self.place, self.pack_jobs = place, pack_jobs
        self.client: Client = place.client()

    def plan(self, jobs: int) -> Ticket:
        """Seal jobs."""
        items = [InputItem(str(number), (TEXT,)) for number in range(jobs)]
        path = self.place.folder / f"load-{secrets.token_hex(4)}.ticket"
        return self.client.plan(self.client.trust_pool(POOL), items, path, pack_jobs=self.pack_jobs)

    def drain(self, jobs: int, workers: list[Worker]) -> float | None:
        """Return jobs per second from the first message taken to the last reply; on Redis only."""
        if self.place.broker.settings.profile != "redis":
            return None
        with self.plan(jobs) as ticket:
            messages = len(ticket.pending_packs)
            with stopped([worker.pid for worker in workers]):
                self.client.push(ticket)
                began = time.perf_counter()
            with redis_client(self.place.broker.settings) as client:
                until(lambda: int(client.llen(ticket.head.reply_to)) >= messages)
            return jobs / (time.perf_counter() - began)

    def whole(self, jobs: int) -> float:
        """Return jobs per second with the client sealing and verifying beside."""
        began = time.perf_counter()
        with self.plan(jobs) as ticket:
            self.client.push(ticket)
            count = sum(result.status == "succeeded" for result in self.client.results(ticket, PATIENCE_S))
        if count != jobs:
            raise SystemExit(f"{jobs - count} jobs did not succeed")
        return jobs / (time.perf_counter() - began)

    def latency(self) -> tuple[float, float]:
        """Return p50 and p99 of one job after another, from its text to the verified result."""
        times = []
        with Session(self.client, [POOL]) as session:
            for number in range(LATENCY_JOBS):
                began = time.perf_counter()
                session.ask(InputItem(str(number), (TEXT,)))
                times.append(time.perf_counter() - began)
        return quantiles(times)


# --------------------------------------------------------------------------------- plain


def plain_environment(broker: Broker, results: str) -> dict[str, str]:
    """Return where the plain task's messages and results go: Celery's own ways on the same servers.

    :param results: a Redis for the results of Pub/Sub, which brings no result backend of its own.
    """
    settings = broker.settings
    if settings.profile == "redis":
        return {"PLAIN_BROKER": settings.url, "PLAIN_BACKEND": settings.url.rsplit("/", 1)[0] + "/1"}
    if settings.profile == "pubsub":
        os.environ["PUBSUB_EMULATOR_HOST"] = settings.pubsub_endpoint
        return {"PLAIN_BROKER": "gcpubsub://projects/plain", "PLAIN_BACKEND": results}
    address = str(settings.blob_endpoint)
    options = {"is_secure": False, "region": settings.blob_region, "wait_time_seconds": 1}
    config = {
        "s3_access_key_id": "key",
        "s3_secret_access_key": "secret",
        "s3_bucket": "a-bucket",
        "s3_region": settings.blob_region,
        "s3_endpoint_url": address,
    }
    return {
        "PLAIN_BROKER": f"sqs://key:secret@{address.removeprefix('http://')}//",
        "PLAIN_BACKEND": "s3",
        "PLAIN_OPTIONS": json.dumps(options),
        "PLAIN_CONFIG": json.dumps(config),
    }


class Plain:
    """A plain Celery task."""

    def __init__(self, broker: Broker, results: str) -> None:
        os.environ |= plain_environment(broker, results)
        from .plain import app, echo

        self.app, self.echo, self.broker = app, echo, broker
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, workers: int) -> list[int]:
        """Start Celery workers and return their pids."""
        command = [sys.executable, "-m", "celery", "-A", "tests.bench.plain", "worker", "--pool", "threads"]
        command += ["--concurrency", CONCURRENCY, "--loglevel", "WARNING", "-Q", "plain"]
        command += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        self.processes = [
            subprocess.Popen([*command, "-n", f"w{number}@plain"], cwd=ROOT, stderr=subprocess.DEVNULL)
            for number in range(workers)
        ]
        for _ in range(4 * workers):  # every worker has answered once
            self.echo.delay("x").get(timeout=60)
        return [process.pid for process in self.processes]

    def end(self) -> None:
        """End them."""
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(60)

    def drain(self, jobs: int, pids: list[int]) -> float | None:
        """Return tasks per second from the first message taken to the last result; on Redis only."""
        if self.broker.settings.profile != "redis":
            return None
        with redis_client(self.broker.settings) as client:
            backend: Any = type(client)(
                connection_pool=type(client.connection_pool)(
                    **{**client.connection_pool.connection_kwargs, "db": 1}
                )
            )
            backend.flushdb()
            with stopped(pids):
                for _ in range(jobs):
                    self.echo.delay(PAYLOAD)
                began = time.perf_counter()
            until(lambda: int(backend.dbsize()) >= jobs)
            return jobs / (time.perf_counter() - began)

    def whole(self, jobs: int) -> float:
        """Return tasks per second with the client submitting and fetching."""
        began = time.perf_counter()
        results = [self.echo.delay(PAYLOAD) for _ in range(jobs)]
        for result in results:
            result.get(timeout=PATIENCE_S)
        return jobs / (time.perf_counter() - began)

    def latency(self) -> tuple[float, float]:
        """Return p50 and p99 of one task after another."""
        times = []
        for _ in range(LATENCY_JOBS):
            began = time.perf_counter()
            self.echo.delay(PAYLOAD).get(timeout=PATIENCE_S)
            times.append(time.perf_counter() - began)
        return quantiles(times)


# ---------------------------------------------------------------------------------- runs


def measure(place: Site, workers: int, jobs: int, results: str) -> Iterator[Row]:
    """Measure plain and sealed with so many workers."""
    plain = Plain(place.broker, results)
    pids = plain.start(workers)
    row = Row("plain Celery", workers, plain.drain(jobs, pids), plain.whole(jobs))
    row.p50_ms, row.p99_ms = plain.latency()
    plain.end()
    yield row
    ours = [place.worker("--concurrency", CONCURRENCY) for _ in range(workers)]
    for worker in ours:
        worker.ready()
    for pack_jobs in (1, 8, 32, 64):
        sealed = Sealed(place, pack_jobs)
        count = jobs * min(8, pack_jobs)
        row = Row(f"sealed, packs of {pack_jobs}", workers, sealed.drain(count, ours), sealed.whole(count))
        if pack_jobs == 1:
            row.p50_ms, row.p99_ms = sealed.latency()
        yield row
    for worker in ours:
        worker.signal(signal.SIGTERM)
        worker.ended()


def memory(place: Site, jobs: int) -> list[tuple[int, float, float]]:
    """Return after each tenth of the jobs: jobs so far, resident MiB of the worker and of this client."""
    worker = place.worker().ready()
    sealed = Sealed(place, 32)
    points = []
    for tenth in range(1, 11):
        sealed.whole(jobs // 10)
        points.append((tenth * jobs // 10, _resident(worker.pid), _resident(os.getpid())))
        print(
            f"after {points[-1][0]:>7} jobs: worker {points[-1][1]:.0f} MiB, client {points[-1][2]:.0f} MiB"
        )
    worker.signal(signal.SIGTERM)
    worker.ended()
    return points


def _resident(pid: int) -> float:
    """Return a process's resident memory in MiB (proc(5), statm: pages)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def table(rows: list[Row]) -> str:
    """Return the rows as Markdown, with ratios to plain Celery at as many workers."""
    lines = ["| jobs | workers | drained /s | × plain | whole /s | × plain | p50 ms | p99 ms |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    base: dict[int, Row] = {row.workers: row for row in rows if row.what == "plain Celery"}
    for row in rows:
        plain = base[row.workers]
        cells = [row.what, str(row.workers)]
        for name in ("drain", "whole"):
            value, beside = getattr(row, name), getattr(plain, name)
            cells += ["", ""] if value is None else [f"{value:,.0f}", f"{value / beside:.2f}"]
        cells += ["" if value is None else f"{value:.1f}" for value in (row.p50_ms, row.p99_ms)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--broker", choices=("redis", "sqs", "pubsub"), default="redis")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--jobs", type=int, default=2000, help="messages in each measurement")
    parser.add_argument(
        "--memory", type=int, default=0, metavar="JOBS", help="watch memory over so many jobs"
    )
    options = parser.parse_args()
    rows: list[Row] = []
    points: list[tuple[int, float, float]] = []
    with tempfile.TemporaryDirectory() as name, laboratory(Path(name)) as lab:
        folder = Path(name)
        with (
            BROKERS[options.broker](folder / "broker") as broker,
            brokers.redis(folder / "results") as backend,
            site(lab, broker, folder / "site") as place,
        ):
            if options.memory:
                points = memory(place, options.memory)
            else:
                for workers in options.workers:
                    for row in measure(place, workers, options.jobs, backend.settings.url):
                        rows.append(row)
                        print(
                            f"{row.what}, {workers} worker(s): {row.drain or 0:,.0f} {row.whole:,.0f}",
                            flush=True,
                        )
    about = f"{platform.machine()}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}"
    if rows:
        print(table(rows))
    print(f"\n{about}, {datetime.now(UTC):%Y-%m-%d}")
    results = ROOT / "bench-results"
    results.mkdir(exist_ok=True)
    kind = "memory" if points else f"load-{options.broker}"
    kept = {"about": about, "rows": [asdict(row) for row in rows], "memory": points}
    (results / f"{kind}.json").write_text(json.dumps(kept, indent=2) + "\n")


if __name__ == "__main__":
    main()
