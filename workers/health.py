"""A worker's status pages: ``/healthz``, ``/readyz`` and ``/metrics``, for whoever runs it.

A server as small as it can be, for it stands in the TEE and whoever reaches it is untrusted: it reads
one request of bounded size within a bounded time, looks at nothing but method and path, answers, and
closes. Nobody can post anything.
"""

from __future__ import annotations

import json
import logging
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ..wire.errors import ConfigurationError, Error
from .logs import event
from .pulse import Pulse

LOG: Final = logging.getLogger("ephemeralml.worker")
MAX_REQUEST_BYTES: Final = 8192
#: For a request to arrive whole, and for its answer to be taken.
REQUEST_SECONDS: Final = 2.0
#: Connections at once; more are closed unanswered.
MAX_CONNECTIONS: Final = 8
JSON: Final = "application/json"
#: Prometheus's text form, version 0.0.4.
TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"

#: (status, content type, body)
Answer = tuple[int, str, bytes]
_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    503: "Service Unavailable",
}


@dataclass
class Standing:
    """Whether a worker lives, and whether it could answer a job now.

    :param stuck_s: seconds without a turn of a connected consumer's loop, from which on it is stuck.
    :param checks: by name, what must be true of a worker that is ready.
    """

    pulse: Pulse
    stuck_s: float
    checks: Mapping[str, Callable[[], bool]]
    monotonic: Callable[[], float] = time.monotonic

    @property
    def alive(self) -> bool:
        """Whether a restart of the process is not needed; waiting for KMS or broker is living too."""
        pulse = self.pulse
        return not pulse.connected or self.monotonic() - pulse.turned <= self.stuck_s

    def ready(self) -> dict[str, bool]:
        """Return each check's answer; one that fails to answer is not passed."""
        return {name: _passed(check) for name, check in self.checks.items()}


def _passed(check: Callable[[], bool]) -> bool:
    try:
        return bool(check())
    except Exception as error:
        event(LOG, logging.ERROR, "a readiness check failed", error=type(error).__name__)
        return False


@dataclass
class Pages:
    """Answers requests.

    :param metrics: returns the metrics page.
    """

    standing: Standing
    metrics: Callable[[], bytes]

    def __call__(self, method: str, path: str) -> Answer:
        """Return the answer to one request."""
        if method != "GET":
            return _json(405, {"error": "METHOD_NOT_ALLOWED"})
        if path == "/healthz":
            alive = self.standing.alive
            return _json(200 if alive else 503, {"alive": alive})
        if path == "/readyz":
            checks = self.standing.ready()
            ready = all(checks.values())
            return _json(200 if ready else 503, {"ready": ready, "checks": checks})
        if path == "/metrics":
            try:
                return 200, TEXT, self.metrics()
            except Error as error:
                return _json(503, {"error": error.code})
        return _json(404, {"error": "NOT_FOUND"})


def _json(status: int, value: Mapping[str, object]) -> Answer:
    return status, JSON, json.dumps(value).encode() + b"\n"


class _Handler(socketserver.BaseRequestHandler):
    """Reads one request line and the headers after it, which nobody looks at."""

    server: _Server

    def handle(self) -> None:
        if not self.server.slots.acquire(blocking=False):
            return
        try:
            self._answer(self.request)
        except OSError:
            return  # gone, or too slow
        except Exception as error:
            event(LOG, logging.ERROR, "a status page failed", error=type(error).__name__)
        finally:
            self.server.slots.release()

    def _answer(self, connection: socket.socket) -> None:
        head = _read_head(connection, time.monotonic() + REQUEST_SECONDS)
        status, kind, body = _bad() if head is None else self.server.pages(*head)
        reason = _REASONS[status]
        lines = f"HTTP/1.1 {status} {reason}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        lines += "Connection: close\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\r\n"
        connection.settimeout(REQUEST_SECONDS)
        connection.sendall(lines.encode() + body)


def _bad() -> Answer:
    return _json(400, {"error": "BAD_REQUEST"})


def _read_head(connection: socket.socket, deadline: float) -> tuple[str, str] | None:
    """Return method and path, or None where this is no request; raises OSError when it comes too late."""
    data = b""
    while b"\r\n\r\n" not in data:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        piece = connection.recv(MAX_REQUEST_BYTES)
        data += piece
        if not piece or len(data) > MAX_REQUEST_BYTES:
            return None
    parts = data.split(b"\r\n", 1)[0].split(b" ")
    if len(parts) != 3 or parts[2] not in {b"HTTP/1.0", b"HTTP/1.1"} or not data.isascii():
        return None
    return parts[0].decode(), parts[1].decode()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 16

    def __init__(self, address: tuple[str, int], family: int, pages: Callable[[str, str], Answer]) -> None:
        self.address_family = family
        self.pages = pages
        self.slots = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: the inherited way prints addresses and tracebacks."""


class StatusServer:
    """Serves status pages from threads of its own.

    :param address: ``host:port``, host an IP address or ``localhost``; port 0 takes a free one.
    :raises ConfigurationError: ``STATUS_ADDRESS``: it cannot be listened on.
    """

    def __init__(self, address: str, pages: Callable[[str, str], Answer]) -> None:
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._server = _Server((host, int(port)), family, pages)
        except (OSError, ValueError, OverflowError) as error:
            why = getattr(error, "strerror", None) or "it is not HOST:PORT"
            raise ConfigurationError("STATUS_ADDRESS", f"the status pages cannot be served: {why}") from None
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, name="status", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Serve no longer."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
