"""Google's side on this machine: STS and IAM over HTTP, Cloud KMS over gRPC, each checking what it is sent.

STS verifies the launcher's token with our own verifier, then applies a provider's
rules: allowed audience, a nonce that was not used before, and an attribute condition
(the policy). The KMS wraps with AES-GCM, so that another AAD or a changed blob fails
for the reason that it would fail for at Google's.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs

import google_crc32c
import grpc  # type: ignore[import-untyped]  # grpcio ships no types
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.cloud import kms_v1

from ephemeralml.attestation.confidential_space import (
    ConfidentialSpaceDetails,
    ConfidentialSpacePolicy,
    WorkloadImage,
)
from ephemeralml.attestation.confidential_space.appraise import appraise_confidential_space
from ephemeralml.attestation.confidential_space.verify import verify
from ephemeralml.wire.errors import Error

from ...attestation.confidential_space.forge import ACCOUNT, IMAGE, NOW, issuer

KEY: Final = "projects/owner/locations/europe-west4/keyRings/ring/cryptoKeys/fleet"
PROVIDER: Final = "projects/123456789/locations/global/workloadIdentityPools/workers/providers/space"
AUDIENCE: Final = f"https://iam.googleapis.com/{PROVIDER}"
SERVICE_ACCOUNT: Final = "release@owner.iam.gserviceaccount.com"
SCOPE: Final = "https://www.googleapis.com/auth/cloudkms"
IAM_SCOPE: Final = "https://www.googleapis.com/auth/iam"

Json = dict[str, Any]


@dataclass
class Google:
    """What the three services share, and what tests change of it."""

    audience: str = AUDIENCE
    image: str = IMAGE
    allowed_to_decrypt: set[str] = field(default_factory=lambda: {"workload"})
    sts_answers: list[tuple[int, bytes]] = field(default_factory=list)
    iam_answers: list[tuple[int, bytes]] = field(default_factory=list)
    failures: list[grpc.StatusCode] = field(default_factory=list)
    change_encrypt: Callable[[kms_v1.EncryptResponse], Any] = lambda answer: None
    change_decrypt: Callable[[kms_v1.DecryptResponse], Any] = lambda answer: None
    principals: dict[str, str] = field(default_factory=dict)
    nonces: set[str] = field(default_factory=set)
    refused: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    requests: list[Any] = field(default_factory=list)
    master: bytes = field(default_factory=lambda: AESGCM.generate_key(256))
    key: str = KEY

    def give(self, principal: str) -> str:
        """Return an access token of a principal."""
        token = "ya29." + secrets.token_urlsafe(24)
        self.principals[token] = principal
        return token

    # ------------------------------------------------------------------ STS and IAM

    def sts(self, form: dict[str, list[str]]) -> tuple[int, Json]:
        """Exchange a token as RFC 8693 and the provider's rules say."""
        wanted = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "audience": f"//iam.googleapis.com/{PROVIDER}",
            "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        }
        scopes = {SCOPE: "workload", IAM_SCOPE: "workload, for IAM only"}
        principal = scopes.get(form.get("scope", [""])[0])
        if principal is None or any(form.get(name) != [value] for name, value in wanted.items()):
            return self._refuse("invalid_request", "the form is not as it should be")
        try:
            verified = verify(form["subject_token"][0].encode(), issuer(), NOW)
        except Error as error:
            return self._refuse("invalid_grant", error.code)
        said = ConfidentialSpaceDetails.of(verified)
        judged = appraise_confidential_space(verified, self._condition())
        if judged.refusals or verified.debug:
            return self._refuse("unauthorized_client", judged.refusals[0][0] if judged.refusals else "DEBUG")
        if len(said.nonces) != 1 or said.nonces[0] in self.nonces:
            return self._refuse("unauthorized_client", "NONCE")
        self.nonces.add(said.nonces[0])
        return 200, {
            "access_token": self.give(principal),
            "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "token_type": "Bearer",
            "expires_in": 3600,
        }

    def _condition(self) -> ConfidentialSpacePolicy:
        return ConfidentialSpacePolicy(
            images=(WorkloadImage(name="worker", image_digest=self.image),),
            audience=self.audience,
            hwmodels=("GCP_INTEL_TDX",),
            service_accounts=(ACCOUNT,),
            min_swversion="UNCHECKED",
            gpu_cc_mode="UNCHECKED",
            env_overrides="UNCHECKED",
        )

    def _refuse(self, error: str, why: str) -> tuple[int, Json]:
        self.refused.append(why)
        return 400, {"error": error, "error_description": f"rejected secret-words {why}"}

    def iam(self, principal: str | None, account: str, body: Json) -> tuple[int, Json]:
        """Return a token of a service account."""
        if (
            principal != "workload, for IAM only"
            or account != SERVICE_ACCOUNT
            or body.get("scope") != [SCOPE]
        ):
            return 403, {"error": {"status": "PERMISSION_DENIED"}}
        return 200, {"accessToken": self.give(account), "expireTime": "2100-01-01T00:00:00Z"}

    # ------------------------------------------------------------------ KMS

    def encrypt(self, request: kms_v1.EncryptRequest, context: grpc.ServicerContext) -> Any:
        """Wrap; checksums are checked and said to be."""
        self._admit(request, context, "encrypt")
        aad = request.additional_authenticated_data
        sums = (request.plaintext_crc32c, request.additional_authenticated_data_crc32c)
        if sums != (crc(request.plaintext), crc(aad)):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a checksum does not match")
        nonce = secrets.token_bytes(12)
        ciphertext = nonce + AESGCM(self.master).encrypt(nonce, request.plaintext, aad)
        answer = kms_v1.EncryptResponse(
            name=f"{self.key}/cryptoKeyVersions/1",
            ciphertext=ciphertext,
            ciphertext_crc32c=crc(ciphertext),
            verified_plaintext_crc32c=True,
            verified_additional_authenticated_data_crc32c=True,
        )
        self.change_encrypt(answer)
        return answer

    def decrypt(self, request: kms_v1.DecryptRequest, context: grpc.ServicerContext) -> Any:
        """Unwrap; another AAD is an invalid argument, as at Google's."""
        self._admit(request, context, "decrypt")
        wrapped, aad = request.ciphertext, request.additional_authenticated_data
        if (request.ciphertext_crc32c, request.additional_authenticated_data_crc32c) != (
            crc(wrapped),
            crc(aad),
        ):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a checksum does not match")
        try:
            plaintext = AESGCM(self.master).decrypt(wrapped[:12], wrapped[12:], aad)
        except (InvalidTag, ValueError):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Decryption failed")
        answer = kms_v1.DecryptResponse(
            plaintext=plaintext, plaintext_crc32c=crc(plaintext), used_primary=True
        )
        self.change_decrypt(answer)
        return answer

    def _admit(self, request: Any, context: grpc.ServicerContext, method: str) -> None:
        self.calls.append(method)
        self.requests.append(request)
        if self.failures:
            context.abort(self.failures.pop(0), "secret-words of the service")
        metadata = dict(context.invocation_metadata() or ())
        scheme, _, token = str(metadata.get("authorization", "")).partition(" ")
        principal = self.principals.get(token)
        if scheme != "Bearer" or principal is None:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you")
        if principal not in self.allowed_to_decrypt and not (method == "encrypt" and principal == "owner"):
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "denied on resource (or it may not exist)")
        if request.name != self.key:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such key")


def crc(data: bytes) -> int:
    """Return the CRC32C of bytes."""
    return int(google_crc32c.value(data))


class _Web(ThreadingHTTPServer):
    def __init__(self, google: Google) -> None:
        super().__init__(("127.0.0.1", 0), _Requests)
        self.google = google


class _Requests(BaseHTTPRequestHandler):
    server: _Web

    def do_POST(self) -> None:
        google, path = self.server.google, self.path
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if path == "/v1/token":
            google.calls.append("sts")
            status, answer = self._instead(google.sts_answers) or _json(google.sts(parse_qs(body.decode())))
        else:
            google.calls.append("iam")
            account = path.removeprefix("/v1/projects/-/serviceAccounts/").removesuffix(
                ":generateAccessToken"
            )
            _, _, token = str(self.headers["Authorization"]).partition(" ")
            principal = google.principals.get(token)
            made = google.iam(principal, account, json.loads(body))
            status, answer = self._instead(google.iam_answers) or _json(made)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def _instead(self, planned: list[tuple[int, bytes]]) -> tuple[int, bytes] | None:
        return planned.pop(0) if planned else None

    def log_message(self, format: str, *args: object) -> None:
        pass


def _json(made: tuple[int, Json]) -> tuple[int, bytes]:
    return made[0], json.dumps(made[1]).encode()


@dataclass
class Addresses:
    """Where the services listen."""

    web: str
    kms: str


@contextmanager
def serve(
    google: Google, credentials: grpc.ServerCredentials | None = None, relay: str | None = None
) -> Iterator[Addresses]:
    """Run the three services; the KMS with TLS where there are credentials, on a unix socket where named."""
    grpc_server = grpc.server(futures.ThreadPoolExecutor(2))
    handlers = {
        "Encrypt": _handler(google.encrypt, kms_v1.EncryptRequest, kms_v1.EncryptResponse),
        "Decrypt": _handler(google.decrypt, kms_v1.DecryptRequest, kms_v1.DecryptResponse),
    }
    service = "google.cloud.kms.v1.KeyManagementService"
    grpc_server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    if credentials is None:
        kms = f"http://127.0.0.1:{grpc_server.add_insecure_port('127.0.0.1:0')}"
    elif relay is not None:
        grpc_server.add_secure_port(relay, credentials)
        kms = relay
    else:
        kms = f"https://127.0.0.1:{grpc_server.add_secure_port('127.0.0.1:0', credentials)}"
    grpc_server.start()
    with _Web(google) as web:
        thread = threading.Thread(target=web.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield Addresses(f"http://127.0.0.1:{web.server_port}", kms)
        finally:
            web.shutdown()
            thread.join()
            grpc_server.stop(None).wait()


def _handler(method: Callable[..., Any], request: Any, answer: Any) -> grpc.RpcMethodHandler:
    return grpc.unary_unary_rpc_method_handler(
        method, request_deserializer=request.deserialize, response_serializer=answer.serialize
    )
