"""One attempt: over TLS of the name to the judged address, within bounds, following nothing."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from ephemeralml.producer.gateway.webhooks import guard
from ephemeralml.producer.gateway.webhooks.schedule import DELAYS, MAX_ATTEMPTS, delay, retry_after
from ephemeralml.producer.gateway.webhooks.sender import MAX_BODY_BYTES, Sender

OK = b"HTTP/1.1 204 No Content\r\n\r\n"
Serve = Callable[[socket.socket], None]


@contextmanager
def server(serve: Serve, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Answer each connection with a function, in a thread."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        done = threading.Event()
        listening.settimeout(0.05)

        def run() -> None:
            while not done.is_set():
                try:
                    connection, _ = listening.accept()
                    with (
                        connection,
                        tls.wrap_socket(connection, server_side=True) if tls else connection as c,
                    ):
                        c.settimeout(5)
                        serve(c)
                except OSError:
                    continue

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            done.set()
            thread.join()


def request_of(connection: socket.socket) -> bytes:
    """Read a whole request."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += _more(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-l")
    )
    while len(body) < length:
        body += _more(connection)
    return head + b"\r\n\r\n" + body


def _more(connection: socket.socket) -> bytes:
    found = connection.recv(65536)
    if not found:
        raise ConnectionResetError
    return found


def answering(answer: bytes, got: list[bytes] | None = None) -> Serve:
    """Return a server's function that always says the same."""

    def serve(connection: socket.socket) -> None:
        found = request_of(connection)
        if got is not None:
            got.append(found)
        connection.sendall(answer)

    return serve


LOCAL = Sender(allow_loopback_http=True, attempt_s=5)


def test_a_request_is_whole_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    got: list[bytes] = []
    with server(answering(OK, got)) as port:
        answer = LOCAL.send(f"http://localhost:{port}/a?b=c", {"webhook-id": "msg_1"}, b"{}")
    assert answer.delivered
    assert answer.status == 204
    (request,) = got
    assert request.startswith(b"POST /a?b=c HTTP/1.1\r\n")
    assert request.endswith(b"\r\n\r\n{}")
    assert b"\r\nwebhook-id: msg_1\r\n" in request
    assert f"\r\nHost: localhost:{port}\r\n".encode() in request


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(status: int) -> None:
    got: list[bytes] = []
    with server(answering(OK, got)) as other:
        to = f"HTTP/1.1 {status} X\r\nLocation: http://127.0.0.1:{other}/\r\nContent-Length: 0\r\n\r\n"
        with server(answering(to.encode())) as port:
            answer = LOCAL.send(f"http://127.0.0.1:{port}/", {}, b"{}")
    assert (answer.status, answer.code, got) == (status, "REDIRECTED", [])


@pytest.mark.parametrize("status", [400, 401, 410, 429, 500, 503])
def test_everything_but_a_success_is_refused(status: int) -> None:
    said = f"HTTP/1.1 {status} X\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n"
    with server(answering(said.encode())) as port:
        answer = LOCAL.send(f"http://127.0.0.1:{port}/", {}, b"{}")
    assert (answer.status, answer.code, answer.retry_after_s) == (status, "REFUSED", 7.0)


def test_an_endless_answer_is_cut() -> None:
    sent = [0]

    def endless(connection: socket.socket) -> None:
        request_of(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while sent[0] < 200 << 20:
            connection.sendall(b"x" * 65536)
            sent[0] += 65536

    with server(endless) as port:
        assert LOCAL.send(f"http://127.0.0.1:{port}/", {}, b"{}").delivered
    assert sent[0] < 100 << 20


@pytest.mark.parametrize("begin", [b"", b"HTTP/1.1 200 OK\r\nX: "])
def test_a_dripping_answer_ends_in_time(begin: bytes) -> None:
    stop = threading.Event()

    def drip(connection: socket.socket) -> None:
        request_of(connection)
        connection.sendall(begin)
        while not stop.wait(0.05):
            connection.sendall(b"a")

    with server(drip) as port:
        begun = time.monotonic()
        answer = Sender(True, 0.5).send(f"http://127.0.0.1:{port}/", {}, b"{}")
        took = time.monotonic() - begun
        stop.set()
    assert answer.code == "TIMED_OUT"
    assert took < 10


def test_nobody_there_and_what_is_no_http() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert LOCAL.send(f"http://127.0.0.1:{port}/", {}, b"{}").code == "NOT_CONNECTED"
    with server(answering(b"SSH-2.0-x\r\n")) as port:
        assert LOCAL.send(f"http://127.0.0.1:{port}/", {}, b"{}").code == "BROKEN_OFF"
    assert LOCAL.send("http://127.0.0.1/", {}, bytes(MAX_BODY_BYTES + 1)).code == "BODY_TOO_LARGE"


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("https://127.0.0.1/", "WEBHOOK_ADDRESS_REFUSED"),
        ("https://metadata.example/", "WEBHOOK_ADDRESS_REFUSED"),
        ("http://name.example/", "BAD_WEBHOOK_URL"),
    ],
)
def test_the_guard_is_asked_at_every_attempt(url: str, code: str) -> None:
    sender = Sender(resolve=lambda *_: ["169.254.169.254"])
    assert sender.send(url, {}, b"{}").code == code


def test_a_name_that_rebinds_is_not_asked_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was judged is what is connected to: the resolver's second answer never comes to pass."""
    asked: list[str] = []

    def rebinding(host: str, _: int) -> list[str]:
        asked.append(host)
        return ["8.8.8.8"] if len(asked) == 1 else ["127.0.0.1"]

    connected: list[tuple[str, int]] = []

    def connect(address: tuple[str, int], *_: object, **__: object) -> socket.socket:
        connected.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr("urllib3.util.connection.create_connection", connect)
    answer = Sender(resolve=rebinding).send("https://rebind.example/", {}, b"{}")
    assert (answer.code, asked, connected) == ("NOT_CONNECTED", ["rebind.example"], [("8.8.8.8", 443)])


def certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return contexts of a server of this name and of a client that trusts it."""
    key = generate_private_key(SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    file = folder / "server.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(private + made.public_bytes(Encoding.PEM))
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(file)
    return serving, ssl.create_default_context(cadata=made.public_bytes(Encoding.PEM).decode())


def test_tls_is_of_the_name_although_the_address_is_connected_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving, trusting = certificate(tmp_path, "hook.example")
    names: list[str | None] = []
    serving.sni_callback = lambda _, name, __: names.append(name)
    monkeypatch.setattr(guard, "is_public", lambda _: True)
    got: list[bytes] = []
    with server(answering(OK, got), serving) as port:
        sender = Sender(resolve=lambda *_: ["127.0.0.1"], tls=trusting, attempt_s=5)
        assert sender.send(f"https://hook.example:{port}/", {}, b"{}").delivered
        assert sender.send(f"https://other.example:{port}/", {}, b"{}").code == "TLS_FAILED"
        strict = Sender(resolve=lambda *_: ["127.0.0.1"], attempt_s=5)
        assert strict.send(f"https://hook.example:{port}/", {}, b"{}").code == "TLS_FAILED"
    assert names == ["hook.example", "other.example", "hook.example"]
    assert len(got) == 1
    assert f"Host: hook.example:{port}".encode() in got[0]


def test_the_schedule_is_of_75_hours() -> None:
    waits = [delay(attempts, lambda: 0.0) for attempts in range(1, MAX_ATTEMPTS)]
    assert waits == list(DELAYS)
    assert sum(DELAYS) > 75 * 3600
    assert delay(MAX_ATTEMPTS, lambda: 0.0) is None
    assert delay(1, lambda: 1.0) == pytest.approx(6)
    assert delay(1, lambda: 0.0, retry_after_s=60) == 60
    assert delay(9, lambda: 0.0, retry_after_s=1) == DELAYS[8]
    assert delay(1, lambda: 0.0, retry_after_s=10**9) == 86_400


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None), ("", None), ("7", 7.0), ("-1", None), ("soon", None), ("\u0661", None),
        ("9" * 65, None),
        ("Thu, 01 Jan 1970 00:02:00 GMT", 20.0), ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
    ],
)  # fmt: skip
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, 100.0) == seconds
