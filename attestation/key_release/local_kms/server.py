"""The local KMS over HTTP: AWS's JSON 1.1 protocol on one loopback port."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Final

from ....wire.errors import ConfigurationError
from .config import LocalKmsConfig
from .requests import MAX_BODY_BYTES
from .service import KmsService

READ_TIMEOUT_S: Final = 10.0
CONTENT_TYPE: Final = "application/x-amz-json-1.1"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], service: KmsService) -> None:
        self.service = service
        super().__init__(address, _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a broken connection; the audit log holds what was answered."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = READ_TIMEOUT_S
    server_version = "EphemeralMLKms"
    sys_version = ""

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        # ASCII digits only: int() would take signs, spaces and underscores as well.
        size = int(length) if length.isascii() and length.isdigit() and len(length) <= 9 else -1
        if self.path != "/" or size < 0 or self.headers.get("Transfer-Encoding"):
            self._send(400, {"__type": "SerializationException", "message": "not a KMS request"}, "-")
        elif size > MAX_BODY_BYTES:
            self._send(413, {"__type": "RequestEntityTooLargeException", "message": "too large"}, "-")
        else:
            names = [name.lower() for name in self.headers]
            if len(names) != len(set(names)):
                self._send(400, {"__type": "SerializationException", "message": "a header twice"}, "-")
                return
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = self.server.service.handle(headers, self.rfile.read(size))
            self._send(answer.status, answer.body, answer.request_id)

    def _send(self, status: int, body: object, request_id: str) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("x-amzn-RequestId", request_id)
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Write no access log: the audit log is the record."""


class LocalKms:
    """A local KMS in a thread of this process.

    Use it as a context manager, or call :meth:`start` and :meth:`stop`.

    :param now: clock, Unix seconds.
    """

    def __init__(self, config: LocalKmsConfig, *, now: Callable[[], float] = time.time) -> None:
        self.config = config
        self._now = now
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> str:
        """Begin to serve; return the endpoint, e.g. ``http://127.0.0.1:40123``.

        :raises ConfigurationError: ``KMS_PORT_UNUSABLE``, or a policy, root or folder is not usable.
        """
        if self._server is None:
            self._server = _bind(self.config, self._now)
            self._thread = threading.Thread(
                target=self._server.serve_forever, args=(0.05,), name="local-kms", daemon=True
            )
            self._thread.start()
        return self.endpoint

    @property
    def endpoint(self) -> str:
        """Where it listens.

        :raises ConfigurationError: ``KMS_NOT_STARTED``.
        """
        if self._server is None:
            raise ConfigurationError("KMS_NOT_STARTED", "the local KMS is not running")
        return _endpoint(self._server)

    def stop(self) -> None:
        """Stop serving and close the audit log; does nothing when not running."""
        server, thread = self._server, self._thread
        if server is None or thread is None:
            return
        self._server = self._thread = None
        server.shutdown()
        thread.join()
        server.server_close()
        server.service.close()

    def __enter__(self) -> LocalKms:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def serve(config: LocalKmsConfig, *, ready: Callable[[str], None] | None = None) -> None:
    """Serve in this thread until interrupted (``KeyboardInterrupt`` or ``SystemExit`` from a signal handler).

    :param ready: called once with the endpoint.
    :raises ConfigurationError: as :meth:`LocalKms.start`.
    """
    server = _bind(config, time.time)
    try:
        if ready is not None:
            ready(_endpoint(server))
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
        server.service.close()


def _endpoint(server: _Server) -> str:
    host, port = server.server_address[:2]
    return f"http://{host!s}:{port}"


def _bind(config: LocalKmsConfig, now: Callable[[], float]) -> _Server:
    service = KmsService(config, now=now)
    try:
        return _Server((config.host, config.port), service)
    except (OSError, OverflowError):
        service.close()
        raise ConfigurationError("KMS_PORT_UNUSABLE", "the local KMS cannot listen on that address") from None
