"""What the proxy costs beside the SDK: one text per request, one laboratory worker in its own process.

Run with ``python -m tests.proxy.bench [noop|openvino]``; prints one line per way of asking.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx

from ephemeralml.broker_config.profiles import broker_running
from ephemeralml.broker_config.settings import broker_settings
from ephemeralml.producer.cli.common import make_client, read_policy
from ephemeralml.producer.client import Client
from ephemeralml.producer.inputs import InputItem
from ephemeralml.producer.lab import POOL, Lab, minilm_folder
from ephemeralml.producer.session import Session

ROUNDS = 100
MANY = 1000
ITEM = InputItem("1", ("A sentence of some twenty tokens, as they stand in the measurements of engines.",))


def latency(name: str, ask: Callable[[], object], rounds: int = ROUNDS) -> None:
    """Ask one after the other and print the median and the 95th percentile."""
    ask()
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        ask()
        times.append(1000 * (time.perf_counter() - started))
    times.sort()
    print(f"{name:<44} p50 {statistics.median(times):6.2f} ms  p95 {times[int(0.95 * rounds)]:6.2f} ms")


def by_ticket(client: Client, folder: Path) -> None:
    """Run one job as a ticket."""
    path = folder / os.urandom(8).hex()
    with client.plan(client.trust_pool(POOL), [ITEM], path) as ticket:
        client.push(ticket)
        list(client.results(ticket, 30))


async def at_once(ask: Callable[[], Awaitable[object]], count: int = MANY) -> float:
    """Ask many at once and return requests per second."""
    started = time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(count)))
    return count / (time.perf_counter() - started)


def measure(lab: Lab, folder: Path) -> None:
    """Measure the three ways against a worker that runs."""
    url, token = served(lab, folder)
    body = {"model": POOL, "input": ITEM.texts[0], "encoding_format": "base64"}
    headers = {"authorization": f"Bearer {token}"}
    with broker_running(broker_settings(state_dir=lab.state)) as settings:
        client = make_client(settings, read_policy(lab.policy))
        latency("SDK, a ticket per request", lambda: by_ticket(client, folder), 30)
        with Session(client, [POOL]) as session:
            latency("SDK, a session", lambda: session.ask(ITEM))
            rate = asyncio.run(at_once(lambda: session.run(ITEM)))
            print(f"{'SDK, a session, 1000 at once':<44} {rate:6.0f} per second")
        with httpx.Client(base_url=url, headers=headers, timeout=60) as http:
            latency("proxy, /v1/embeddings", lambda: http.post("/embeddings", json=body).raise_for_status())
            latency("proxy, /v1/models (HTTP alone)", lambda: http.get("/models").raise_for_status())

        async def many() -> float:
            gate = asyncio.Semaphore(64)
            async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as http:

                async def ask() -> None:
                    async with gate:
                        (await http.post("/embeddings", json=body)).raise_for_status()

                return await at_once(ask)

        before = cpu_seconds()
        rate = asyncio.run(many())
        spent = 1000 * (cpu_seconds() - before) / MANY
        print(f"{'proxy, 1000 over 64 connections':<44} {rate:6.0f} per second")
        print(f"{'  processor time of the proxy alone':<44} {spent:6.2f} ms per request")


def served(lab: Lab, folder: Path) -> tuple[str, str]:
    """Start a proxy and return its address and token."""
    arguments = ("proxy", "--pool", POOL, "--port", "0", "--folder", str(folder / "proxy"))
    start(lab, *arguments, until="ready: ")
    return LINES[-1].removeprefix("ready: "), (folder / "proxy" / "token").read_text().strip()


def cpu_seconds() -> float:
    """Return the processor time of the process that was started last, in seconds."""
    fields = Path(f"/proc/{STARTED[-1].pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


STARTED: list[subprocess.Popen[str]] = []
LINES: list[str] = []


def start(lab: Lab, *arguments: str, until: str) -> None:
    """Start a command of ours and wait for a line that begins so."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ephemeralml", *arguments],
        env={**os.environ, **lab.worker_environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    STARTED.append(process)
    for line in process.stdout or ():
        LINES.append(line.strip())
        if line.startswith(until):
            return
    raise SystemExit(f"{arguments[0]} ended early: {LINES[-1:]}")


def main() -> None:
    """Bring a laboratory up, measure, take it down."""
    backend = sys.argv[1] if len(sys.argv) > 1 else "noop"
    folder = Path(tempfile.mkdtemp(prefix="proxy-bench-"))
    lab = Lab.create(folder / "lab")
    with lab.kms():
        lab.package(minilm_folder())
        try:
            start(lab, "worker", "--backend", backend, until="ready:")
            measure(lab, folder)
        finally:
            for process in STARTED:
                process.terminate()
                process.wait(20)


if __name__ == "__main__":
    main()
