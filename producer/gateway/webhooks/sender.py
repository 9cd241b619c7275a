"""Sends one webhook once: to a judged address, over TLS of its name, within bounds of time and size."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from socket import SHUT_RDWR
from typing import Final

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, SSLError
from urllib3.util.ssl_match_hostname import CertificateError

from ....wire.errors import Error
from .guard import Resolve, Target, addresses, read_url, system_resolve
from .schedule import retry_after

#: Seconds for one attempt, all in all; the specification recommends 15 to 30.
ATTEMPT_SECONDS: Final = 20.0
CONNECT_SECONDS: Final = 5.0
#: Of an answer's body so much is read, and thrown away.
MAX_ANSWER_BYTES: Final = 16 << 10
MAX_BODY_BYTES: Final = 1 << 20
GONE: Final = 410


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one attempt.

    :param status: of HTTP, 0 where there was no answer. :param code: why it failed, "" for a success.
    :param retry_after_s: seconds that the receiver asked for.
    """

    status: int
    code: str
    retry_after_s: float | None = None

    @property
    def delivered(self) -> bool:
        """Whether the receiver has taken it."""
        return not self.code


@dataclass(frozen=True)
class Sender:
    """Sends; safe for threads. Proxies of the environment, redirects, cookies: nothing of it is followed.

    :param allow_loopback_http: for development only. :param attempt_s: seconds for one attempt.
    :param resolve: finds addresses of names. :param tls: how receivers' certificates are verified.
    """

    allow_loopback_http: bool = False
    attempt_s: float = ATTEMPT_SECONDS
    resolve: Resolve = system_resolve
    tls: ssl.SSLContext = field(default_factory=ssl.create_default_context)
    now: Callable[[], float] = time.time

    def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Post a body and return what became of it; never raises."""
        if len(body) > MAX_BODY_BYTES:
            return Answer(0, "BODY_TOO_LARGE")
        try:
            target = read_url(url, allow_loopback_http=self.allow_loopback_http)
            found = addresses(target, self.resolve, allow_loopback_http=self.allow_loopback_http)
        except Error as error:
            return Answer(0, error.code)
        return self._post(target, found[0], headers, body)

    def _post(self, target: Target, address: str, headers: Mapping[str, str], body: bytes) -> Answer:
        connection = self._connection(target, address)
        late = threading.Event()

        def end() -> None:
            late.set()
            # Each read has its own time; only an end from outside bounds one that drips.
            with suppress(OSError, AttributeError):
                connection.sock.shutdown(SHUT_RDWR)

        clock = threading.Timer(self.attempt_s, end)
        clock.daemon = True
        clock.start()
        try:
            answer = self._exchange(connection, target, headers, body)
            return Answer(0, "TIMED_OUT") if late.is_set() else answer
        except (HTTPException, HTTPError, OSError, ValueError) as error:
            return Answer(0, "TIMED_OUT" if late.is_set() else _code(error))
        finally:
            clock.cancel()
            connection.close()

    def _connection(self, target: Target, address: str) -> HTTPConnection:
        seconds = min(CONNECT_SECONDS, self.attempt_s)
        if not target.https:
            return HTTPConnection(address, target.port, timeout=seconds)
        return HTTPSConnection(
            address,
            target.port,
            timeout=seconds,
            ssl_context=self.tls,
            server_hostname=target.host.rstrip("."),
            assert_hostname=target.host.rstrip("."),
        )

    def _exchange(
        self, connection: HTTPConnection, target: Target, headers: Mapping[str, str], body: bytes
    ) -> Answer:
        connection.connect()
        if connection.sock is not None:
            connection.sock.settimeout(self.attempt_s)
        own = {
            "Host": target.host_header,
            "User-Agent": "ephemeralml-webhooks/1",
            "Accept-Encoding": "identity",
        }
        connection.request(
            "POST", target.path, body, {**headers, **own}, preload_content=False, decode_content=False
        )
        answer = connection.getresponse()
        left = answer.read(MAX_ANSWER_BYTES)
        del left  # nothing of it is kept: a tenant could read the gateway's network by it
        if 200 <= answer.status < 300:
            return Answer(answer.status, "")
        wish = retry_after(answer.headers.get("Retry-After"), self.now())
        return Answer(answer.status, "REDIRECTED" if 300 <= answer.status < 400 else "REFUSED", wish)


def _code(error: Exception) -> str:
    name = type(error).__name__
    if isinstance(error, ssl.SSLError | SSLError | CertificateError):
        return "TLS_FAILED"
    if "Timeout" in name or isinstance(error, TimeoutError):
        return "TIMED_OUT"
    if "NewConnection" in name or isinstance(error, ConnectionRefusedError):
        return "NOT_CONNECTED"
    return "BROKEN_OFF"
