"""Forks workers from a process that has imported everything, so that killing many of them is cheap.

Each line on standard input is a JSON object: ``arguments``, ``environment``, ``log``. The answer is the pid
of a fork that runs ``ephemeralml`` and writes all its output to ``log``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Self

PRELOADED = (
    "celery.apps.worker",
    "celery.concurrency.thread",
    "celery.worker.consumer",
    "kombu.transport.redis",
    "ephemeralml.attestation.key_release.boto",
    "ephemeralml.broker_config.redis.carrier",
    "ephemeralml.workers.app",
    "ephemeralml.workers.cli",
)


def main() -> None:
    """Serve until standard input ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps
    for module in PRELOADED:
        import_module(module)
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if child == 0:
            _become(job["arguments"], job["environment"], job["log"])
        print(child, flush=True)


def _become(arguments: list[str], environment: dict[str, str], log: str) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    for number in (1, 2):
        os.dup2(descriptor, number)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["ephemeralml", *arguments]
    from ephemeralml.cli import main as cli

    cli()  # ends in sys.exit, as in a process of the user's


class Worker:
    """A forked worker.

    :param log: the file of its output.
    """

    def __init__(self, pid: int, log: Path, process: subprocess.Popen[bytes] | None = None) -> None:
        self.pid = pid
        self.log = log
        self._process = process

    @property
    def text(self) -> str:
        """What it printed so far."""
        return self.log.read_text() if self.log.exists() else ""

    @property
    def alive(self) -> bool:
        """Whether its process exists."""
        if self._process is not None:
            return self._process.poll() is None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def ready(self, seconds: float = 60) -> Self:
        """Return once its gate is open."""
        deadline = time.monotonic() + seconds
        while "ready:" not in self.text:
            if not self.alive or time.monotonic() > deadline:
                raise AssertionError(f"a worker did not get ready:\n{self.text}")
            time.sleep(0.02)
        return self

    def signal(self, number: int) -> None:
        """Send a signal; harmless when it has ended."""
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return

    def ended(self, seconds: float = 60) -> None:
        """Return once its process has ended."""
        deadline = time.monotonic() + seconds
        while self.alive:
            assert time.monotonic() < deadline, f"a worker does not end:\n{self.text}"
            time.sleep(0.02)


class Nursery:
    """Starts workers; a context manager that ends all of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._own: list[subprocess.Popen[bytes]] = []
        self.workers: list[Worker] = []

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.delivery.nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).resolve().parents[2],
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self.workers:
            worker.signal(signal.SIGKILL)
        for process in self._own:
            process.wait()
        self._process.communicate()

    def start(self, environment: dict[str, str], *arguments: str) -> Worker:
        """Fork ``ephemeralml arguments`` with this environment."""
        with self._lock:
            log = self._folder / f"worker-{len(self.workers)}.log"
            job = {"arguments": arguments, "environment": environment, "log": str(log)}
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
            worker = Worker(int(self._process.stdout.readline()), log)
            self.workers.append(worker)
            return worker

    def run(self, environment: dict[str, str], *arguments: str) -> Worker:
        """Start ``ephemeralml arguments`` as a process of its own."""
        with self._lock:
            log = self._folder / f"worker-{len(self.workers)}.log"
            with log.open("wb") as output:
                process = subprocess.Popen(
                    [sys.executable, "-m", "ephemeralml", *arguments],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            self._own.append(process)
            worker = Worker(process.pid, log, process)
            self.workers.append(worker)
            return worker


if __name__ == "__main__":
    main()
