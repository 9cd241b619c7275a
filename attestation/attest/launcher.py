"""The Confidential Space launcher: a small HTTP server on a unix socket that gives tokens.

Format: Google Cloud, "Confidential Space: connect to external resources" (custom
tokens): ``POST /v1/token`` with ``audience``, ``token_type`` and ``nonces``; the answer
is the token and nothing else. The launcher takes at most 512 bytes of audience and six
nonces of 10 to 74 bytes, and answers ten requests in a minute.
"""

from __future__ import annotations

import http.client
import io
import json
import socket
import time
from collections.abc import Callable, Sequence
from typing import Final, Literal

from ...wire.errors import ConfigurationError, FetchError, MalformedError

SOCKET: Final = "/run/container_launcher/teeserver.sock"
DEFAULT_DEADLINE_S: Final = 15.0
MAX_AUDIENCE_BYTES: Final = 512
MAX_NONCES: Final = 6
MIN_NONCE_BYTES: Final = 10
MAX_NONCE_BYTES: Final = 74
MAX_ANSWER_BYTES: Final = 49_152  # a token of 32 KiB, and its head
_CHUNK: Final = 8_192
# The connection ends with the answer: there is one for each token, and they are far between.
_REQUEST: Final = (
    b"POST /v1/token HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n"
)

TokenKind = Literal["OIDC", "PKI"]


class Launcher:
    """Asks the launcher of this machine for attestation tokens.

    :param path: of the unix socket. :param deadline_s: for one token, from the first byte to the last, in
        seconds.
    :param monotonic: a clock, in seconds.
    """

    def __init__(
        self,
        path: str = SOCKET,
        *,
        deadline_s: float = DEFAULT_DEADLINE_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._deadline_s = deadline_s
        self._monotonic = monotonic

    def token(self, *, audience: str, nonces: Sequence[str], kind: TokenKind) -> bytes:
        """Return a fresh token.

        :param audience: who it is for, 1 to 512 bytes. :param nonces: one to six of 10 to 74 bytes, which it
            vouches for. :param kind: how it is signed: by a key of the JWKS, or with a chain to the root.
        :raises MalformedError: ``OUT_OF_BOUNDS``.
        :raises ConfigurationError: ``NO_LAUNCHER``: there is no socket; ``LAUNCHER_REFUSED``: it does not
            accept the request.
        :raises FetchError: ``LAUNCHER_UNAVAILABLE`` (retriable), or ``LAUNCHER_BAD_ANSWER``.
        """
        _check(audience, nonces)
        body = json.dumps({"audience": audience, "token_type": kind, "nonces": list(nonces)}).encode()
        status, answer = self._ask(body)
        if status == 429 or status >= 500:
            raise FetchError("LAUNCHER_UNAVAILABLE", f"the launcher answers {status}")
        if status != 200:
            raise ConfigurationError("LAUNCHER_REFUSED", f"the launcher refuses the request with {status}")
        return answer.strip()

    def _ask(self, body: bytes) -> tuple[int, bytes]:
        end = self._monotonic() + self._deadline_s
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(self._left(end))
                connection.connect(self._path)
                connection.sendall(_REQUEST % len(body) + body)
                return _read_answer(self._read(connection, end))
        except (FileNotFoundError, ConnectionRefusedError, PermissionError):
            raise ConfigurationError(
                "NO_LAUNCHER", "no Confidential Space launcher here: run in its container, or name its socket"
            ) from None
        except OSError:
            raise FetchError("LAUNCHER_UNAVAILABLE", "the launcher does not answer in time") from None

    def _read(self, connection: socket.socket, end: float) -> bytes:
        """Read until the launcher closes, every wait within the deadline."""
        answer = bytearray()
        while True:
            connection.settimeout(self._left(end))
            part = connection.recv(_CHUNK)
            if not part:
                return bytes(answer)
            answer += part
            if len(answer) > MAX_ANSWER_BYTES:
                raise FetchError("LAUNCHER_BAD_ANSWER", "the launcher's answer is too long", retriable=False)

    def _left(self, end: float) -> float:
        left = end - self._monotonic()
        if left <= 0:
            raise TimeoutError
        return left


class _Answer:
    """Answered bytes where the library expects a socket."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


def _read_answer(data: bytes) -> tuple[int, bytes]:
    """Return status and body of an answer that is here whole.

    http.client would read from the socket itself, but then each wait has its own limit and none the sum.
    """
    response = http.client.HTTPResponse(_Answer(data), method="POST")  # type: ignore[arg-type]
    try:
        response.begin()
        return response.status, response.read()
    except (http.client.HTTPException, ValueError):
        raise FetchError("LAUNCHER_BAD_ANSWER", "the launcher's answer is no HTTP", retriable=False) from None


def _check(audience: str, nonces: Sequence[str]) -> None:
    if not 1 <= len(audience.encode()) <= MAX_AUDIENCE_BYTES:
        raise MalformedError("OUT_OF_BOUNDS", f"an audience has 1 to {MAX_AUDIENCE_BYTES} bytes")
    if not 1 <= len(nonces) <= MAX_NONCES:
        raise MalformedError("OUT_OF_BOUNDS", f"the launcher takes one to {MAX_NONCES} nonces")
    if any(not MIN_NONCE_BYTES <= len(nonce.encode()) <= MAX_NONCE_BYTES for nonce in nonces):
        raise MalformedError(
            "OUT_OF_BOUNDS", f"the launcher takes nonces of {MIN_NONCE_BYTES} to {MAX_NONCE_BYTES} bytes"
        )
