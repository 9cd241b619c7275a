"""The boto3 side: what each answer of a KMS becomes, deadlines, and settings."""

from __future__ import annotations

import base64
import json
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from ephemeralml.attestation.key_release.aws import AwsKms, owner_data_key
from ephemeralml.attestation.key_release.cms import make_enveloped
from ephemeralml.attestation.nitro.parse import parse
from ephemeralml.attestation.simulated import SimulatedAttester
from ephemeralml.wire.errors import ConfigurationError, KeyReleaseError

from .conftest import CONTEXT, Connect

Answers = Callable[..., "FakeKms"]


class FakeKms(HTTPServer):
    """Answers what it is told to, in order; the last answer again and again."""

    def __init__(self, *answers: tuple[int, Any]) -> None:
        self.answers = list(answers)
        self.requests: list[dict[str, Any]] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: FakeKms

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(request)
        status, body = self.server.answers.pop(0) if len(self.server.answers) > 1 else self.server.answers[0]
        data = json.dumps(body(request) if callable(body) else body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def fake() -> Iterator[Answers]:
    running: list[tuple[FakeKms, threading.Thread]] = []

    def start(*answers: tuple[int, Any]) -> FakeKms:
        server = FakeKms(*answers)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        running.append((server, thread))
        return server

    yield start
    for server, thread in running:
        server.shutdown()
        thread.join()
        server.server_close()


def error(kind: str, status: int = 400) -> tuple[int, dict[str, str]]:
    return status, {"__type": kind, "message": "canary-message"}


def public_key(request: dict[str, Any]) -> RSAPublicKey:
    document = parse(base64.b64decode(request["Recipient"]["AttestationDocument"]))
    key = load_der_public_key(document.public_key or b"")
    assert isinstance(key, RSAPublicKey)
    return key


def sealed(plaintext: bytes = b"s" * 32, **more: str) -> Callable[[dict[str, Any]], dict[str, str]]:
    def answer(request: dict[str, Any]) -> dict[str, str]:
        envelope = base64.b64encode(make_enveloped(plaintext, public_key(request))).decode()
        return {"CiphertextBlob": "d3JhcHBlZA==", "CiphertextForRecipient": envelope, "KeyId": "k"} | more

    return answer


def failure(worker: AwsKms) -> KeyReleaseError:
    with pytest.raises(KeyReleaseError) as caught:
        worker.generate_data_key(CONTEXT)
    assert "canary-message" not in str(caught.value)
    assert caught.value.__cause__ is None
    return caught.value


@pytest.mark.parametrize(
    ("answer", "code", "attempts"),
    [
        (error("AccessDeniedException"), "KMS_DENIED", 1),
        (error("UnrecognizedClientException"), "KMS_CREDENTIALS", 1),
        (error("ExpiredTokenException"), "KMS_CREDENTIALS", 1),
        (error("ValidationException"), "KMS_REFUSED_REQUEST", 1),
        (error("InvalidCiphertextException"), "KMS_WRONG_BLOB", 1),
        (error("IncorrectKeyException"), "KMS_WRONG_KEY", 1),
        (error("SomethingNew"), "KMS_REFUSED_REQUEST", 1),
        (error("DisabledException"), "KMS_KEY_UNUSABLE", 1),
        (error("KMSInvalidStateException"), "KMS_KEY_UNUSABLE", 1),
        (error("NotFoundException"), "KMS_KEY_UNUSABLE", 1),
        (error("ThrottlingException"), "KMS_THROTTLED", 4),
        (error("KMSInternalException", 500), "KMS_UNAVAILABLE", 4),
        (error("Whatever", 503), "KMS_UNAVAILABLE", 4),
        ((200, {"Plaintext": "c2VjcmV0", "CiphertextBlob": "eA=="}), "KMS_RETURNED_PLAINTEXT", 1),
        ((200, sealed(Plaintext="c2VjcmV0")), "KMS_RETURNED_PLAINTEXT", 1),
        ((200, {"CiphertextBlob": "eA=="}), "KMS_BAD_ANSWER", 1),
        ((200, {"CiphertextBlob": "eA==", "CiphertextForRecipient": "eA=="}), "CMS_MALFORMED", 1),
        ((200, sealed(b"s" * 31)), "KMS_BAD_ANSWER", 1),
        ((200, sealed(CiphertextBlob="")), "KMS_BAD_ANSWER", 1),
    ],
)
def test_answers(
    fake: Answers, attester: SimulatedAttester, connect: Connect, answer: Any, code: str, attempts: int
) -> None:
    server = fake(answer)
    caught = failure(connect(attester, server.endpoint, sleep=lambda _: None))
    assert caught.code == code
    assert caught.retriable is (code in ("KMS_UNAVAILABLE", "KMS_THROTTLED"))
    assert len(server.requests) == attempts


def test_every_attempt_has_a_fresh_document_and_key(
    fake: Answers, attester: SimulatedAttester, connect: Connect
) -> None:
    server = fake(error("ThrottlingException"), error("KMSInternalException", 500), (200, sealed()))
    pauses: list[float] = []
    made = connect(attester, server.endpoint, sleep=pauses.append).generate_data_key(CONTEXT)
    assert (made.plaintext, made.wrapped) == (b"s" * 32, b"wrapped")
    assert len({request["Recipient"]["AttestationDocument"] for request in server.requests}) == 3
    assert len({public_key(request).public_numbers().n for request in server.requests}) == 3
    assert len(pauses) == 2
    assert all(public_key(request).key_size == 2048 for request in server.requests)


def test_an_empty_plaintext_is_no_plaintext(
    fake: Answers, attester: SimulatedAttester, connect: Connect
) -> None:
    """AWS: with a recipient "the Plaintext field in the response is null or empty"."""
    server = fake((200, sealed(Plaintext="")))
    assert connect(attester, server.endpoint).decrypt(b"wrapped", CONTEXT) == b"s" * 32
    assert server.requests[0]["EncryptionContext"] == CONTEXT
    assert server.requests[0]["KeyId"] == "alias/fleet"


def test_an_answer_for_another_key_is_refused(
    fake: Answers, attester: SimulatedAttester, connect: Connect
) -> None:
    kept: list[dict[str, Any]] = []

    def first_answer_again(request: dict[str, Any]) -> dict[str, str]:
        kept.append(request)
        return sealed()(kept[0])

    worker = connect(attester, fake((200, first_answer_again)).endpoint)
    worker.generate_data_key(CONTEXT)
    assert failure(worker).code == "CMS_NOT_OPENED"


def test_an_unreachable_kms_is_retriable(attester: SimulatedAttester, connect: Connect) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{probe.getsockname()[1]}"
    caught = failure(connect(attester, endpoint, sleep=lambda _: None))
    assert (caught.code, caught.retriable) == ("KMS_UNAVAILABLE", True)


def test_a_silent_kms_does_not_hold_us_past_the_deadline(
    attester: SimulatedAttester, connect: Connect
) -> None:
    import time

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        started = time.monotonic()
        assert failure(connect(attester, endpoint, deadline_s=1.5)).code == "KMS_UNAVAILABLE"
        # Generous: making RSA keys on a busy machine takes its own time.
        assert time.monotonic() - started < 10


def test_no_attempt_begins_that_the_deadline_would_cut(
    fake: Answers, attester: SimulatedAttester, connect: Connect
) -> None:
    server = fake(error("ThrottlingException"))
    clock = iter((0.0, 25.0))
    worker = connect(attester, server.endpoint, deadline_s=30, monotonic=lambda: next(clock))
    assert failure(worker).code == "KMS_THROTTLED"
    assert len(server.requests) == 1


def test_owner_gets_a_key_in_the_clear(fake: Answers) -> None:
    body = {"Plaintext": base64.b64encode(b"s" * 32).decode(), "CiphertextBlob": "eA==", "KeyId": "k"}
    server = fake((200, body))
    made = owner_data_key(
        "alias/model",
        CONTEXT,
        endpoint_url=server.endpoint,
        region="us-east-1",
        access_key_id="AKIA",
        secret_access_key="secret",
    )
    assert (made.plaintext, made.wrapped) == (b"s" * 32, b"x")
    assert "Recipient" not in server.requests[0]
    assert "sss" not in repr(made)


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"access_key_id": "AKIA"}, "KMS_CREDENTIALS_INCOMPLETE"),
        ({"endpoint_url": "not a url", "region": "us-east-1"}, "BAD_KMS_SETTINGS"),
        ({}, "BAD_KMS_SETTINGS"),
        ({"session_token": "token"}, "KMS_CREDENTIALS_INCOMPLETE"),
        ({"endpoint_url": "http://[::1"}, "BAD_KMS_SETTINGS"),
        ({"proxy": "vsock://3:8000"}, "BAD_KMS_SETTINGS"),
        ({"instance_metadata": "file:///etc"}, "BAD_KMS_SETTINGS"),
        ({"ca_bundle": Path("/no/such/bundle.pem")}, "BAD_KMS_SETTINGS"),
        ({"read_timeout_s": 0}, "BAD_KMS_SETTINGS"),
    ],
)
def test_bad_settings(attester: SimulatedAttester, settings: dict[str, Any], code: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        AwsKms(attester, "alias/fleet", **settings)
    assert caught.value.code == code


def test_no_credentials(attester: SimulatedAttester, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    worker = AwsKms(attester, "alias/fleet", endpoint_url="http://127.0.0.1:9", region="us-east-1")
    with pytest.raises(ConfigurationError) as caught:
        worker.generate_data_key(CONTEXT)
    worker.close()
    assert caught.value.code == "KMS_NO_CREDENTIALS"


def test_a_request_outside_the_model_is_refused(attester: SimulatedAttester, connect: Connect) -> None:
    worker = connect(attester, "http://127.0.0.1:9", key_id="")
    assert failure(worker).code == "KMS_REFUSED_REQUEST"


def test_a_missing_extra_is_one_line(attester: SimulatedAttester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "botocore.session", None)
    with pytest.raises(ConfigurationError) as caught:
        AwsKms(attester, "alias/fleet", region="us-east-1")
    assert str(caught.value) == "EXTRA_MISSING: AWS KMS needs boto3: pip install 'ephemeralml[aws]'"
