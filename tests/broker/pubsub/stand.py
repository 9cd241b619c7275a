"""Worker processes on Pub/Sub's fake, and what they have answered."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ephemeralml.broker_config import BrokerSettings
from ephemeralml.broker_config.submit import Submitter

from ...servers.pstest import environment

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
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def submit(settings: BrokerSettings, *messages: bytes) -> None:
    """Put messages into the queue of the pool ``p``."""
    with Submitter(settings) as submitter:
        for message in messages:
            submitter.submit("p", message)


def answered(folder: Path) -> list[str]:
    """Return the messages that workers have answered, in order."""
    return [message for _, message in _lines(folder / "out")]


def deliveries(folder: Path) -> dict[str, int]:
    """Return at which delivery each message was answered."""
    return {message: int(number) for number, message in _lines(folder / "out")}


def started(folder: Path) -> Counter[str]:
    """Return how often work on each message began."""
    return Counter(message for _, message in _lines(folder / "out.started"))


def log_of(folder: Path) -> str:
    """Return what workers have logged."""
    return (folder / "log").read_text()


def until(true: Callable[[], bool]) -> None:
    """Return once ``true`` says so."""
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def _lines(path: Path) -> list[tuple[str, str]]:
    if not path.exists():
        return []
    pairs = (line.split() for line in path.read_text().splitlines())
    return [(number, bytes.fromhex(message).decode()) for number, message in pairs]
