"""Worker processes on SQS."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ephemeralml.broker_config import BrokerSettings
from ephemeralml.broker_config.health import depth

from ...servers.moto import environment

ROOT = Path(__file__).parents[3]


@contextmanager
def worker(
    settings: BrokerSettings, folder: Path, *, concurrency: int = 1
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker of the pool ``p``; its log is ``folder/log``."""
    command = [sys.executable, "-m", "tests.broker.pubsub.worker_process", str(folder / "out")]
    given = {**os.environ, **environment(settings), "CONCURRENCY": str(concurrency)}
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=given, stdout=log, stderr=log)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def left(settings: BrokerSettings) -> tuple[int | None, int | None]:
    """Return how many messages wait and are in flight; moto counts exactly."""
    full = depth(settings, "p")
    return full.waiting, full.in_flight
