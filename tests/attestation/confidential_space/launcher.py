"""A launcher on this machine: real HTTP on a unix socket, checking what it is sent as Google's does."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from .forge import oidc, pki


class StandInLauncher(socketserver.ThreadingUnixStreamServer):
    """Answers ``POST /v1/token`` with tokens of the tests' issuer or chain.

    :param says: claims to change in every token. :param answer: what to send instead, from the token.
    """

    daemon_threads = True

    def __init__(
        self,
        path: Path,
        *,
        says: Mapping[str, object] | None = None,
        status: int = 200,
        answer: Callable[[bytes], bytes] = lambda token: token,
    ) -> None:
        super().__init__(str(path), _Requests)
        self.path = str(path)
        self.says = dict(says or {})
        self.status = status
        self.answer = answer
        self.asked: list[dict[str, Any]] = []

    def answer_to(self, path: str, kind: str | None, body: bytes) -> tuple[int, bytes]:
        """Return status and body, as the launcher's source has them."""
        if path != "/v1/token" or kind != "application/json":
            return 404, b"404 page not found"
        wanted = json.loads(body)
        if wanted.keys() - {"audience", "token_type", "nonces", "aws_principal_tag_options"}:
            return 400, b"unknown field"
        nonces = wanted["nonces"]
        if not wanted["audience"] or wanted["token_type"] not in ("OIDC", "PKI"):
            return 400, b"audience or token_type"
        if len(nonces) > 6 or any(not 10 <= len(nonce.encode()) <= 74 for nonce in nonces):
            return 400, b"nonces"
        self.asked.append(wanted)
        said = {"aud": wanted["audience"], "eat_nonce": nonces[0] if len(nonces) == 1 else nonces} | self.says
        token = oidc(said) if wanted["token_type"] == "OIDC" else pki(changes=said)
        return self.status, self.answer(token)


class _Requests(BaseHTTPRequestHandler):
    server: StandInLauncher

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status, answer = self.server.answer_to(self.path, self.headers["Content-Type"], body)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def address_string(self) -> str:
        return "unix"


@contextmanager
def launcher(path: Path, **settings: Any) -> Iterator[StandInLauncher]:
    """Run a launcher on a socket."""
    with StandInLauncher(path, **settings) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield listening
        finally:
            listening.shutdown()
            thread.join()
