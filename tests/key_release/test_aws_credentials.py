"""Where credentials come from: the parent instance and STS, only where the settings say so."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from ephemeralml.attestation.key_release.aws import AwsKms
from ephemeralml.attestation.simulated import SimulatedAttester
from ephemeralml.wire.errors import ConfigurationError, KeyReleaseError

from .conftest import CONTEXT

CREDENTIALS = {
    "Code": "Success",
    "AccessKeyId": "AKIAPARENT",
    "SecretAccessKey": "secret",
    "Token": "parent-token",
    "Expiration": "2999-01-01T00:00:00Z",
    "LastUpdated": "2026-01-01T00:00:00Z",
}
ROLE = """<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>
<AccessKeyId>AKIAROLE</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>role-token</SessionToken>
<Expiration>2999-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"""


class Amazon(BaseHTTPRequestHandler):
    """Metadata service, STS and KMS in one; KMS denies."""

    seen: list[str]

    def _answer(self, status: int, body: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def do_PUT(self) -> None:
        self.seen.append("token")
        self._answer(200, "imds-token")

    def do_GET(self) -> None:
        self.seen.append(self.path)
        self._answer(200, "role" if self.path.endswith("/") else json.dumps(CREDENTIALS))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        access = self.headers["Authorization"].split("Credential=")[1].split("/")[0]
        if b"Action=AssumeRole" in body:
            self.seen.append(f"sts {access}")
            self._answer(200, ROLE)
        else:
            self.seen.append(f"kms {access} {self.headers['X-Amz-Security-Token']}")
            self._answer(400, '{"__type": "AccessDeniedException"}')

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def amazon() -> Iterator[tuple[str, list[str]]]:
    seen: list[str] = []
    server = HTTPServer(("127.0.0.1", 0), type("Handler", (Amazon,), {"seen": seen}))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", seen
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("role", [None, "arn:aws:iam::000000000000:role/enclave"])
def test_the_parent_s_credentials(
    attester: SimulatedAttester,
    amazon: tuple[str, list[str]],
    monkeypatch: pytest.MonkeyPatch,
    role: str | None,
) -> None:
    address, seen = amazon
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIASURROUNDINGS")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not to be used")
    worker = AwsKms(
        attester,
        "alias/fleet",
        endpoint_url=address,
        region="us-east-1",
        instance_metadata=address,
        sts_endpoint=address,
        role_arn=role,
    )
    with pytest.raises(KeyReleaseError, match="KMS_DENIED"):
        worker.generate_data_key(CONTEXT)
    worker.close()
    assert seen[0] == "token"
    last = "kms AKIAPARENT parent-token" if role is None else "kms AKIAROLE role-token"
    assert seen[-1] == last
    assert ("sts AKIAPARENT" in seen) is (role is not None)


def test_the_network_is_not_asked_unless_told(
    attester: SimulatedAttester, amazon: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, seen = amazon
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", address)
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", address)
    worker = AwsKms(attester, "alias/fleet", endpoint_url=address, region="us-east-1")
    with pytest.raises(ConfigurationError, match="KMS_NO_CREDENTIALS"):
        worker.generate_data_key(CONTEXT)
    worker.close()
    assert seen == []
