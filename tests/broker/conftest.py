"""Brokers of both profiles, real ones: the embedded Redis, and a Redis with a password on a TCP port."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ephemeralml.broker_config import BrokerSettings, broker_running, broker_settings, ping
from ephemeralml.broker_config.redis.embedded import find_server
from ephemeralml.wire.errors import DeliveryError

PASSWORD = "a-secret-password"
PROFILES = ("embedded", "redis")


def free_port() -> int:
    """Return a TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def redis_server(folder: Path, *options: str) -> Iterator[None]:
    """Run a Redis server with the given options in ``folder``."""
    folder.mkdir(exist_ok=True)
    command = [find_server(), "--dir", str(folder), "--save", "", *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            yield
        finally:
            server.kill()


def wait_for(settings: BrokerSettings) -> BrokerSettings:
    """Return once the broker answers."""
    deadline = time.monotonic() + 10
    while True:
        try:
            ping(settings)
            return settings
        except DeliveryError:
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.05)


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("BROKER_URL", "STATE_DIR", "CONFIG", "PROFILE", "VISIBILITY_TIMEOUT_S"):
        monkeypatch.delenv(f"EPHEMERALML_{name}", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))


@contextmanager
def running(profile: str, folder: Path) -> Iterator[BrokerSettings]:
    """Yield settings of a running broker of ``profile``."""
    if profile == "embedded":
        with broker_running(broker_settings(state_dir=folder / "state")) as settings:
            yield settings
        return
    port = free_port()
    with redis_server(folder / "redis", "--port", str(port), "--requirepass", PASSWORD):
        yield wait_for(broker_settings(broker_url=f"redis://:{PASSWORD}@127.0.0.1:{port}/1"))


@pytest.fixture(params=PROFILES)
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BrokerSettings]:
    """A running broker, once per profile."""
    with running(request.param, tmp_path) as settings:
        yield settings
