"""Fetching: bounded, one try, HTTPS or loopback only."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from ephemeralml.attestation.fetch import fetch
from ephemeralml.wire.errors import ConfigurationError, FetchError


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/body")
            self.end_headers()
            return
        body = b"x" * 1000
        self.send_response(200)
        self.send_header("X-Chain", "abc")
        # One byte more than is sent: the connection ends inside the body.
        self.send_header("Content-Length", str(len(body) + (self.path == "/cut")))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[::-1])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Answers) as listening:
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()
        thread.join()


def test_an_answer_is_read_whole(server: str) -> None:
    found = fetch(server + "/body", max_bytes=1000)
    assert (found.status, found.headers["x-chain"], len(found.body)) == (200, "abc", 1000)


def test_a_body_is_sent(server: str) -> None:
    assert fetch(server, max_bytes=10, method="POST", body=b"abc").body == b"cba"


def test_redirects_are_not_followed(server: str) -> None:
    assert fetch(server + "/moved", max_bytes=1000).status == 302


def test_one_byte_too_many(server: str) -> None:
    with pytest.raises(FetchError, match="FETCH_TOO_LARGE") as caught:
        fetch(server + "/body", max_bytes=999)
    assert not caught.value.retriable


def test_a_body_cut_short(server: str) -> None:
    with pytest.raises(FetchError, match="FETCH_FAILED") as caught:
        fetch(server + "/cut", max_bytes=2000)
    assert caught.value.retriable


def test_nobody_listens() -> None:
    with pytest.raises(FetchError, match="FETCH_FAILED"):
        fetch("http://127.0.0.1:9", max_bytes=1, timeout_s=1)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/",
        "http://10.0.0.1/",
        "http://127.0.0.1.example.org/",
        "https://name:word@example.org/",
        "file:///etc/passwd",
        "https://",
        "https://[::1",
        "https://example.org:port/",
        "",
    ],
)
def test_addresses_that_are_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="BAD_URL"):
        fetch(url, max_bytes=1)
