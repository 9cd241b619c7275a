"""The entry of the fleet's image, beside a metadata service and a Cloud Storage of our own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from .hcl import HERE

ENTRY = HERE / "image" / "entry.py"
TOKEN_PATH = "/computeMetadata/v1/instance/service-accounts/default/token"
OBJECTS = "/storage/v1/b/artefacts/o"
#: A worker that says that it is up and waits; SIGTERM ends it with 7.
WORKER = (
    "import pathlib, signal, sys, time\n"
    "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
    "pathlib.Path(sys.argv[1]).touch()\n"
    "time.sleep(60)\n"
)


class Google(ThreadingHTTPServer):
    """Metadata service and Cloud Storage at one address: objects of one bucket, for the bearer of a token."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.objects: dict[str, bytes] = {
            "policies/small.bundle": b"policy 1",
            "collateral/tdx/tcb_info.json": b"{}",
            "collateral/tdx/pck_crl.der": b"crl",
            "collateral/nvidia/rim.xml": b"<rim/>",
        }
        self.broken = False
        self.token: object = {"access_token": "the-token"}


class _Answer(BaseHTTPRequestHandler):
    server: Google

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == TOKEN_PATH:
            known = self.headers.get("Metadata-Flavor") == "Google"
            self._say(200 if known else 403, json.dumps(self.server.token).encode())
        elif self.headers.get("Authorization") != "Bearer the-token" or self.server.broken:
            self._say(503 if self.server.broken else 401, b"no")
        elif url.path == OBJECTS:
            prefix = parse_qs(url.query)["prefix"][0]
            found = [{"name": name} for name in self.server.objects if name.startswith(prefix)]
            self._say(200, json.dumps({"items": found} if found else {}).encode())
        else:
            data = self.server.objects.get(unquote(url.path.removeprefix(OBJECTS + "/")))
            self._say(404 if data is None or url.query != "alt=media" else 200, data or b"")

    def _say(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def google() -> Iterator[Google]:
    """Both services, running."""
    server = Google()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(10)


def environment(folder: Path, google: Google, **changes: str) -> dict[str, str]:
    address = f"127.0.0.1:{google.server_port}"
    return {
        "PATH": os.environ["PATH"],
        "GCE_METADATA_HOST": address,
        "STORAGE_EMULATOR_HOST": f"http://{address}",
        "EPHEMERALML_ENTRY_POLL_SECONDS": "0.02",
        "EPHEMERALML_POLICY_URL": "gs://artefacts/policies/small.bundle",
        "EPHEMERALML_WORKER_POLICY": str(folder / "in/policy.bundle"),
        "EPHEMERALML_COLLATERAL_URL": "gs://artefacts/collateral",
        "EPHEMERALML_WORKER_COLLATERAL": str(folder / "in/collateral"),
        **changes,
    }


def held(folder: Path) -> dict[str, bytes]:
    """Return what the worker can read."""
    found = {}
    for path in (folder / "in").rglob("*"):
        with suppress(FileNotFoundError, IsADirectoryError):  # it may go just now
            found[path.relative_to(folder / "in").as_posix()] = path.read_bytes()
    return found


def until(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not met():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


@contextmanager
def started(folder: Path, google: Google) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, str(ENTRY), sys.executable, "-c", WORKER, str(folder / "up")]
    with subprocess.Popen(command, env=environment(folder, google)) as process:
        try:
            until((folder / "up").exists)
            yield process
        finally:
            process.terminate()


FIRST = {
    "policy.bundle": b"policy 1",
    "collateral/tdx/tcb_info.json": b"{}",
    "collateral/tdx/pck_crl.der": b"crl",
    "collateral/nvidia/rim.xml": b"<rim/>",
}


def test_the_worker_starts_with_policy_and_collateral_and_sigterm_reaches_it(
    tmp_path: Path, google: Google
) -> None:
    with started(tmp_path, google) as process:
        assert held(tmp_path) == FIRST
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 7


def test_what_changes_in_the_bucket_reaches_the_worker_and_a_failure_takes_nothing_away(
    tmp_path: Path, google: Google
) -> None:
    with started(tmp_path, google):
        google.broken = True
        time.sleep(0.2)
        assert held(tmp_path) == FIRST
        google.objects |= {"policies/small.bundle": b"policy 2", "collateral/tdx/pck_crl.der": b"newer"}
        del google.objects["collateral/nvidia/rim.xml"]
        google.broken = False
        wanted = {
            "policy.bundle": b"policy 2",
            "collateral/tdx/tcb_info.json": b"{}",
            "collateral/tdx/pck_crl.der": b"newer",
        }
        until(lambda: held(tmp_path) == wanted)


def test_names_that_lead_elsewhere_are_not_taken(tmp_path: Path, google: Google) -> None:
    for name in ("tdx/../../escaped", "tdx/sub/file", "other/file", "tdx/.hidden", "/etc/x", "tdx/"):
        google.objects["collateral/" + name] = b"bad"
    with started(tmp_path, google):
        assert held(tmp_path) == FIRST
    assert {path.name for path in tmp_path.iterdir()} == {"in", "up"}


def run(folder: Path, google: Google, *command: str, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ENTRY, *command],
        env=environment(folder, google, **changes),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"EPHEMERALML_POLICY_URL": ""},
        {"EPHEMERALML_POLICY_URL": "https://artefacts/policies/small.bundle"},
        {"EPHEMERALML_POLICY_URL": "gs://artefacts/a?b"},
        {"EPHEMERALML_WORKER_POLICY": ""},
        {"EPHEMERALML_COLLATERAL_URL": "file:///etc"},
        {"EPHEMERALML_WORKER_COLLATERAL": ""},
    ],
)
def test_wrong_settings_start_nothing(tmp_path: Path, google: Google, changes: dict[str, str]) -> None:
    done = run(tmp_path, google, "touch", str(tmp_path / "started"), **changes)
    assert (done.returncode, done.stderr.count("\n")) == (78, 1)
    assert not (tmp_path / "started").exists()


def nothing(google: Google) -> None:
    del google.objects["policies/small.bundle"]


def empty(google: Google) -> None:
    google.objects["policies/small.bundle"] = b""


def too_large(google: Google) -> None:
    google.objects["policies/small.bundle"] = bytes((1 << 20) + 1)


def no_collateral(google: Google) -> None:
    for name in [name for name in google.objects if name.startswith("collateral/")]:
        del google.objects[name]


def no_token(google: Google) -> None:
    google.token = ["no"]


@pytest.mark.parametrize("harm", [nothing, empty, too_large, no_collateral, no_token])
def test_without_policy_or_collateral_nothing_starts(
    tmp_path: Path, google: Google, harm: Callable[[Google], None]
) -> None:
    harm(google)
    done = run(tmp_path, google, "touch", str(tmp_path / "started"), EPHEMERALML_ENTRY_POLL_SECONDS="0.001")
    assert (done.returncode, done.stderr.count("\n")) == (69, 1)
    assert not (tmp_path / "started").exists()


def test_a_worker_that_ends_ends_the_container_as_it_ended(tmp_path: Path, google: Google) -> None:
    assert run(tmp_path, google, "sh", "-c", "exit 77").returncode == 77
    assert run(tmp_path, google, "sh", "-c", "kill -9 $$").returncode == 137
