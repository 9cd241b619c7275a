"""A laboratory for the whole test session, and real processes in it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ephemeralml.broker_config.profiles import broker_running
from ephemeralml.broker_config.settings import BrokerSettings, broker_settings
from ephemeralml.producer.cli.common import make_client, read_policy
from ephemeralml.producer.client import Client
from ephemeralml.producer.lab import Lab, minilm_folder

VISIBILITY_SECONDS = 4


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A laboratory with a running KMS and the real MiniLM in its package."""
    lab = Lab.create(tmp_path_factory.mktemp("lab"))
    with lab.kms():
        lab.package(minilm_folder())
        yield lab


@dataclass
class Process:
    """A process of ours with everything it printed."""

    popen: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.popen.stdout or ():
            self.lines.append(line.rstrip())

    @property
    def text(self) -> str:
        """All of its output."""
        return "\n".join(self.lines)

    def wait_for(self, start: str, seconds: float = 40) -> str:
        """Return the first line that begins so."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for line in list(self.lines):
                if line.startswith(start):
                    return line
            if self.popen.poll() is not None and not self._reader.is_alive():
                break
            time.sleep(0.05)
        raise AssertionError(f"no line {start!r} in:\n{self.text}")

    def end(self, seconds: float = 20) -> int:
        """Wait for its end and return the exit code."""
        code = self.popen.wait(seconds)
        self._reader.join(5)
        if self.popen.stdout is not None:
            self.popen.stdout.close()
        return code


@dataclass
class Bench:
    """One test's broker, processes and client inside the laboratory."""

    lab: Lab
    state: Path
    settings: BrokerSettings
    processes: list[Process] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the test's processes."""
        own = {
            "EPHEMERALML_STATE_DIR": str(self.state),
            "EPHEMERALML_VISIBILITY_TIMEOUT_S": str(VISIBILITY_SECONDS),
            "EPHEMERALML_WORKER_THREADS": "1",
        }
        return {**os.environ, **self.lab.worker_environment, **own}

    def start(self, *arguments: str, command: str = "worker", **more: str) -> Process:
        """Start ``ephemeralml command arguments``."""
        popen = subprocess.Popen(
            [sys.executable, "-m", "ephemeralml", *command.split(), *arguments],
            env={**self.environment, **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        process = Process(popen)
        self.processes.append(process)
        return process

    def worker(self, *arguments: str, **more: str) -> Process:
        """Start a worker and wait until its gate is open."""
        process = self.start(*arguments, **more)
        process.wait_for("ready:")
        return process

    def cli(self, *arguments: str, seconds: float = 60) -> tuple[int, str]:
        """Run the command line to its end; return exit code and output."""
        process = self.start(*arguments, command="")
        return process.end(seconds), process.text

    def client(self) -> Client:
        """A client of this test's broker."""
        return make_client(self.settings, read_policy(self.lab.policy))


@pytest.fixture
def bench(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A broker of the test's own; ends every process that the test started."""
    state = tmp_path / "state"
    monkeypatch.setenv("EPHEMERALML_VISIBILITY_TIMEOUT_S", str(VISIBILITY_SECONDS))
    with broker_running(broker_settings(state_dir=state)) as settings:
        bench = Bench(lab, state, settings)
        yield bench
        for process in bench.processes:
            if process.popen.poll() is None:
                process.popen.send_signal(signal.SIGTERM)
        for process in bench.processes:
            try:
                process.end(10)
            except subprocess.TimeoutExpired:
                process.popen.kill()
                process.end(5)
