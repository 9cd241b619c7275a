"""Verifiers are tested without a network, and a test that reached for one would fail."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ..offline import NetworkError

ROOT = Path(__file__).resolve().parents[2]
UNSHARE = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--map-root-user"])]
QUICK = (
    "tests/attestation/nitro/test_corpus.py",
    "tests/attestation/test_policy.py",
    "tests/receipts/test_vectors.py",
    "tests/wire/test_vectors.py",
)


def test_connections_and_look_ups_that_leave_the_machine_fail() -> None:
    with socket.socket() as one, pytest.raises(NetworkError):
        one.connect(("192.0.2.1", 443))
    with socket.socket(socket.AF_INET6) as one, pytest.raises(NetworkError):
        one.connect_ex(("2001:db8::1", 443))
    with pytest.raises(NetworkError):
        socket.create_connection(("api.example.com", 443), timeout=1)
    with pytest.raises(NetworkError):
        socket.getaddrinfo("api.example.com", 443)


def test_this_machine_can_be_reached(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=5).close()
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(str(tmp_path / "socket"))
        server.listen()
        client.connect(str(tmp_path / "socket"))


def test_verifiers_work_where_there_is_no_network_at_all() -> None:
    """In a network namespace of its own not even loopback is up."""
    allowed = shutil.which("unshare") and not subprocess.run([*UNSHARE, "true"], check=False).returncode
    if not allowed:
        pytest.skip("network namespaces cannot be made here")
    command = [
        *UNSHARE,
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        *QUICK,
    ]
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))
    }
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
