"""A KMS in every kind of trouble: one clear line, the right code, in time."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from ephemeralml.attestation.key_release.retry import Patience
from ephemeralml.attestation.simulated import SimulatedAttester
from ephemeralml.wire.errors import KeyReleaseError

from .conftest import CONTEXT, Connect

Serve = Callable[..., "Raw"]


class Raw:
    """Answers every connection with the same bytes, whatever is asked."""

    def __init__(self, answer: bytes, *, silent: bool = False, tls: ssl.SSLContext | None = None) -> None:
        self.answer, self.silent, self.tls, self.calls = answer, silent, tls, 0
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    @property
    def endpoint(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.socket.getsockname()[1]}"

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                self.calls += 1
                connection.settimeout(5)
                if self.silent:
                    self.done.wait(5)
                    continue
                self._serve(self.tls.wrap_socket(connection, server_side=True) if self.tls else connection)

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            head = b""
            while b"\r\n\r\n" not in head:
                head += _more(connection)
            before, _, body = head.partition(b"\r\n\r\n")
            size = next(
                int(line.split(b":")[1])
                for line in before.split(b"\r\n")
                if line.lower().startswith(b"content-length")
            )
            while len(body) < size:
                body += _more(connection)
            connection.sendall(self.answer)

    def close(self) -> None:
        self.done.set()
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.thread.join()


def _more(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise ConnectionError
    return data


@pytest.fixture
def serve() -> Iterator[Serve]:
    running: list[Raw] = []

    def start(answer: bytes = b"", **values: Any) -> Raw:
        running.append(Raw(answer, **values))
        return running[-1]

    yield start
    for one in running:
        one.close()


def http(status: int, body: bytes, *, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return b"HTTP/1.1 %d x\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % (status, size) + body


def refusal(kind: str, status: int = 400) -> bytes:
    return http(status, json.dumps({"__type": kind, "message": "canary"}).encode())


FAULTS = [
    ("denied", refusal("AccessDeniedException"), "KMS_DENIED", False),
    ("another key", refusal("IncorrectKeyException"), "KMS_WRONG_KEY", False),
    ("a damaged blob", refusal("InvalidCiphertextException"), "KMS_WRONG_BLOB", False),
    ("disabled", refusal("DisabledException"), "KMS_KEY_UNUSABLE", False),
    ("being deleted", refusal("KMSInvalidStateException"), "KMS_KEY_UNUSABLE", False),
    ("no such key", refusal("NotFoundException"), "KMS_KEY_UNUSABLE", False),
    ("expired credentials", refusal("ExpiredTokenException"), "KMS_CREDENTIALS", False),
    ("throttled for ever", refusal("ThrottlingException"), "KMS_THROTTLED", True),
    ("over a limit", refusal("LimitExceededException"), "KMS_THROTTLED", True),
    ("failing", refusal("KMSInternalException", 500), "KMS_UNAVAILABLE", True),
    ("its HSM is slow", refusal("DependencyTimeoutException", 503), "KMS_UNAVAILABLE", True),
    ("its key is away", refusal("KeyUnavailableException", 500), "KMS_UNAVAILABLE", True),
    ("an unknown refusal", refusal("NeverHeardOf"), "KMS_REFUSED_REQUEST", False),
    ("an error without a name", http(400, b""), "KMS_REFUSED_REQUEST", False),
    ("too many requests", http(429, b""), "KMS_THROTTLED", True),
    ("a proxy's error page", http(502, b"<html>canary</html>"), "KMS_UNAVAILABLE", True),
    ("garbage", http(200, b"\xff\x00 canary"), "KMS_BAD_ANSWER", False),
    ("a list", http(200, b"[1]"), "KMS_BAD_ANSWER", False),
    ("a number", http(200, b"7"), "KMS_BAD_ANSWER", False),
    ("null", http(200, b"null"), "KMS_BAD_ANSWER", False),
    ("nothing", http(200, b""), "KMS_BAD_ANSWER", False),
    ("no base64", http(200, b'{"CiphertextForRecipient": "*"}'), "KMS_BAD_ANSWER", False),
    ("a number for bytes", http(200, b'{"CiphertextForRecipient": 7}'), "KMS_BAD_ANSWER", False),
    ("deep nesting", http(200, b"[" * 100_000), "KMS_BAD_ANSWER", False),
    ("a short body", http(200, b'{"Ciph', length=999), "KMS_BAD_ANSWER", False),
    ("no HTTP", b"SSH-2.0-canary\r\n\r\n", "KMS_UNAVAILABLE", True),
    ("hung up", b"", "KMS_UNAVAILABLE", True),
]


@pytest.mark.parametrize(
    ("answer", "code", "retriable"), [one[1:] for one in FAULTS], ids=[one[0] for one in FAULTS]
)
def test_every_fault_ends_in_one_line(
    serve: Serve, attester: SimulatedAttester, connect: Connect, answer: bytes, code: str, retriable: bool
) -> None:
    server = serve(answer)
    slept: list[float] = []
    worker = connect(attester, server.endpoint, sleep=slept.append)
    with pytest.raises(KeyReleaseError) as caught:
        worker.decrypt(b"wrapped", CONTEXT)
    assert (caught.value.code, caught.value.retriable) == (code, retriable)
    line = str(caught.value)
    assert "\n" not in line
    assert "canary" not in line
    assert caught.value.__cause__ is None
    assert (server.calls, len(slept)) == ((4, 3) if retriable else (1, 0))


def test_a_silent_kms_is_given_up_in_time(
    serve: Serve, attester: SimulatedAttester, connect: Connect
) -> None:
    """The clock moves by what an attempt may take: no attempt begins that the deadline would cut."""
    server = serve(silent=True)
    clock = iter(range(0, 100, 4))
    worker = connect(
        attester,
        server.endpoint,
        connect_timeout_s=0.1,
        read_timeout_s=0.1,
        deadline_s=9,
        monotonic=lambda: float(next(clock)),
        sleep=lambda _: None,
    )
    with pytest.raises(KeyReleaseError) as caught:
        worker.decrypt(b"wrapped", CONTEXT)
    assert caught.value.code == "KMS_UNAVAILABLE"
    assert next(clock) <= 16


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[ssl.SSLContext, Path]:
    """A server that nobody's roots know, and its certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    import ipaddress

    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, SHA256())
    )
    pem, secret = tmp_path / "server.pem", tmp_path / "server.key"
    pem.write_bytes(made.public_bytes(Encoding.PEM))
    secret.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, secret)
    return context, pem


def test_a_certificate_that_is_not_trusted(
    serve: Serve, attester: SimulatedAttester, connect: Connect, certificate: tuple[ssl.SSLContext, Path]
) -> None:
    context, pem = certificate
    server = serve(refusal("AccessDeniedException"), tls=context)
    with pytest.raises(KeyReleaseError) as caught:
        connect(attester, server.endpoint).decrypt(b"wrapped", CONTEXT)
    assert (caught.value.code, caught.value.retriable, server.calls) == ("KMS_TLS_FAILED", False, 1)
    # With the CA bundle that names it, the KMS itself answers.
    with pytest.raises(KeyReleaseError, match="KMS_DENIED"):
        connect(attester, server.endpoint, ca_bundle=pem).decrypt(b"wrapped", CONTEXT)


def test_tls_that_breaks_off_may_be_tried_again(
    serve: Serve, attester: SimulatedAttester, connect: Connect
) -> None:
    server = serve(b"not TLS\r\n\r\n")
    worker = connect(attester, server.endpoint.replace("http:", "https:"), deadline_s=1, read_timeout_s=0.2)
    with pytest.raises(KeyReleaseError) as caught:
        worker.decrypt(b"wrapped", CONTEXT)
    assert (caught.value.code, caught.value.retriable) == ("KMS_UNAVAILABLE", True)


def test_all_goes_through_the_forward_proxy(
    serve: Serve, attester: SimulatedAttester, connect: Connect
) -> None:
    proxy = serve(refusal("AccessDeniedException"))
    worker = connect(attester, "http://kms.us-east-1.example", proxy=proxy.endpoint)
    with pytest.raises(KeyReleaseError, match="KMS_DENIED"):
        worker.decrypt(b"wrapped", CONTEXT)
    assert proxy.calls == 1


def test_those_that_share_patience_share_the_breaker(
    serve: Serve, attester: SimulatedAttester, connect: Connect
) -> None:
    server = serve(refusal("ThrottlingException"))
    patience = Patience(attempts=1, sleep=lambda _: None)
    for _ in range(3):
        with pytest.raises(KeyReleaseError, match="KMS_THROTTLED"):
            connect(attester, server.endpoint, patience=patience).decrypt(b"wrapped", CONTEXT)
    with pytest.raises(KeyReleaseError, match="left alone"):
        connect(attester, server.endpoint, patience=patience).decrypt(b"wrapped", CONTEXT)
    assert server.calls == 3
    with pytest.raises(KeyReleaseError, match="KMS_THROTTLED"):
        connect(attester, server.endpoint, sleep=lambda _: None).decrypt(b"wrapped", CONTEXT)
