"""Status pages: bounded, read-only, and honest."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from ephemeralml.wire.errors import ConfigurationError
from ephemeralml.workers.health import (
    MAX_CONNECTIONS,
    MAX_REQUEST_BYTES,
    Pages,
    Standing,
    StatusServer,
)
from ephemeralml.workers.pulse import Pulse

CHECKS = ("gate", "key", "announcement", "broker")


class Clock:
    """A clock that a test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class World:
    """A worker as its status pages see it."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.pulse = Pulse(self.clock)
        self.state = dict.fromkeys(CHECKS, True)
        checks = {name: (lambda name=name: self.state[name]) for name in CHECKS}
        self.pages = Pages(Standing(self.pulse, 20, checks, self.clock), lambda: b"a_number 1\n")


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def server(world: World) -> Iterator[StatusServer]:
    made = StatusServer("127.0.0.1:0", world.pages)
    yield made
    made.close()


def ask(server: StatusServer, request: bytes, *, end: bool = True) -> bytes:
    """Send bytes and return what comes back until the server closes."""
    with closing(socket.create_connection(("127.0.0.1", server.port), 20)) as connection:
        try:
            connection.sendall(request)
            if end:
                connection.shutdown(socket.SHUT_WR)
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
        except (ConnectionResetError, BrokenPipeError):
            return b""
        return answer


def get(server: StatusServer, path: str) -> tuple[int, str]:
    head, _, body = ask(server, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()).partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode()


def test_a_worker_that_waits_for_kms_or_broker_lives(server: StatusServer, world: World) -> None:
    assert get(server, "/healthz") == (200, '{"alive": true}\n')
    world.pulse.start()
    world.clock.now += 15
    assert get(server, "/healthz")[0] == 200
    world.clock.now += 15
    assert get(server, "/healthz") == (503, '{"alive": false}\n')
    world.pulse.beat()
    assert get(server, "/healthz")[0] == 200
    world.pulse.stop()
    world.clock.now += 1000
    assert get(server, "/healthz")[0] == 200


@pytest.mark.parametrize("missing", CHECKS)
def test_readiness_needs_every_check(server: StatusServer, world: World, missing: str) -> None:
    assert get(server, "/readyz")[0] == 200
    world.state[missing] = False
    status, body = get(server, "/readyz")
    assert status == 503
    assert json.loads(body) == {"ready": False, "checks": {**dict.fromkeys(CHECKS, True), missing: False}}


def test_a_check_that_fails_is_not_passed() -> None:
    def fail() -> bool:
        raise ValueError("secret")

    assert Standing(Pulse(), 1, {"x": fail}).ready() == {"x": False}


def test_metrics(server: StatusServer) -> None:
    answer = ask(server, b"GET /metrics HTTP/1.0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4")
    assert answer.endswith(b"\r\n\r\na_number 1\n")


def test_metrics_that_cannot_be_made_say_why_by_code(world: World) -> None:
    def fail() -> bytes:
        raise ConfigurationError("EXTRA_MISSING", "why")

    assert Pages(world.pages.standing, fail)("GET", "/metrics") == (
        503,
        "application/json",
        b'{"error": "EXTRA_MISSING"}\n',
    )


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "get", "CONNECT"])
def test_get_only(server: StatusServer, method: str) -> None:
    assert ask(server, f"{method} /metrics HTTP/1.1\r\n\r\n".encode()).startswith(b"HTTP/1.1 405 ")


@pytest.mark.parametrize("path", ["/", "/metrics/", "/metrics?x=1", "/../etc/passwd", "//metrics", "/debug"])
def test_nothing_else_is_there(server: StatusServer, path: str) -> None:
    assert get(server, path)[0] == 404


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /metrics\r\n\r\n",
        b"GET /metrics HTTP/2\r\n\r\n",
        b"GET  /metrics HTTP/1.1\r\n\r\n",
        b"\xff\xfe\r\n\r\n",
        b"GET /m\xc3\xa4trics HTTP/1.1\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nX: " + b"a" * MAX_REQUEST_BYTES + b"\r\n\r\n",
        b"",
    ],
)
def test_what_is_no_request_is_refused(server: StatusServer, request_bytes: bytes) -> None:
    # Bytes beyond the limit stay unread, so that the connection may be reset before the answer is seen.
    answer = ask(server, request_bytes)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")


def test_slow_clients_are_cut_off_and_hold_nobody_up(
    server: StatusServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ephemeralml.workers.health.REQUEST_SECONDS", 0.3)
    slow = [socket.create_connection(("127.0.0.1", server.port), 20) for _ in range(MAX_CONNECTIONS + 4)]
    try:
        for connection in slow:
            connection.sendall(b"GET /")
        for connection in slow:
            assert connection.recv(10) == b""
    except ConnectionResetError:
        pass  # cut off all the same
    finally:
        for connection in slow:
            connection.close()
    deadline = time.monotonic() + 20
    while not ask(server, b"GET /healthz HTTP/1.1\r\n\r\n"):
        assert time.monotonic() < deadline


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.1:99999", "no host:1", "127.0.0.1:x", ":1:2"])
def test_an_address_that_cannot_be_listened_on(world: World, address: str) -> None:
    with pytest.raises(ConfigurationError, match="STATUS_ADDRESS"):
        StatusServer(address, world.pages)


def test_an_address_in_use(server: StatusServer, world: World) -> None:
    with pytest.raises(ConfigurationError, match="STATUS_ADDRESS"):
        StatusServer(f"127.0.0.1:{server.port}", world.pages)
