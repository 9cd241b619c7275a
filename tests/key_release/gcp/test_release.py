"""Key release by Cloud KMS: the real client libraries against services that check what they are sent."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]  # grpcio ships no types
import pytest

from ephemeralml.attestation.attest.launcher import Launcher
from ephemeralml.attestation.key_release import KeyRelease
from ephemeralml.attestation.key_release.gcp import (
    context_bytes,
    gcp_patience,
    make_gcp_release,
    owner_data_key_gcp,
)
from ephemeralml.attestation.key_release.gcp_settings import STS_URL
from ephemeralml.attestation.key_release.gcp_token import _Transport
from ephemeralml.attestation.key_release.retry import Patience
from ephemeralml.wire.encoding import decode
from ephemeralml.wire.errors import ConfigurationError, Error, KeyReleaseError

from ...attestation.confidential_space.forge import oidc, pki
from ...attestation.confidential_space.launcher import StandInLauncher
from .conftest import Connect
from .google import AUDIENCE, KEY, PROVIDER, SERVICE_ACCOUNT, Addresses, Google, crc

CONTEXT = {"purpose": "fleet", "pool": "minilm", "epoch": "1"}
OTHER = "sha256:" + "ee" * 32


def refused(release: KeyRelease, wrapped: bytes | None = None) -> Error:
    with pytest.raises(Error) as caught:
        _ = release.generate_data_key(CONTEXT) if wrapped is None else release.decrypt(wrapped, CONTEXT)
    assert "secret-words" not in str(caught.value)
    return caught.value


def test_a_key_is_made_here_and_released_again(
    connect: Connect, google: Google, tee: StandInLauncher
) -> None:
    release: KeyRelease = connect()
    key = release.generate_data_key(CONTEXT)
    assert release.decrypt(key.wrapped, CONTEXT) == key.plaintext
    assert len(key.plaintext) == 32
    assert google.calls == ["sts", "encrypt", "sts", "decrypt"]
    assert [asked["audience"] for asked in tee.asked] == [AUDIENCE, AUDIENCE]
    assert {asked["token_type"] for asked in tee.asked} == {"OIDC"}
    nonces = [asked["nonces"] for asked in tee.asked]
    assert all(len(one) == 1 and one[0].startswith("nonce:") and len(one[0]) == 70 for one in nonces)
    assert nonces[0] != nonces[1]


def test_every_key_is_another(connect: Connect) -> None:
    release = connect()
    keys = [release.generate_data_key(CONTEXT) for _ in range(3)]
    assert len({key.plaintext for key in keys} | {key.wrapped for key in keys}) == 6


def test_the_requests_carry_context_and_checksums(connect: Connect, google: Google) -> None:
    release = connect()
    key = release.generate_data_key(CONTEXT)
    release.decrypt(key.wrapped, CONTEXT)
    encrypt, decrypt = google.requests
    aad = context_bytes(CONTEXT)
    assert (encrypt.name, encrypt.plaintext, encrypt.additional_authenticated_data) == (
        KEY,
        key.plaintext,
        aad,
    )
    assert (encrypt.plaintext_crc32c, encrypt.additional_authenticated_data_crc32c) == (
        crc(key.plaintext),
        crc(aad),
    )
    assert (decrypt.name, decrypt.ciphertext, decrypt.additional_authenticated_data) == (
        KEY,
        key.wrapped,
        aad,
    )
    assert (decrypt.ciphertext_crc32c, decrypt.additional_authenticated_data_crc32c) == (
        crc(key.wrapped),
        crc(aad),
    )


def test_the_context_has_one_encoding() -> None:
    assert context_bytes(CONTEXT) == context_bytes(dict(reversed(CONTEXT.items())))
    assert decode(context_bytes(CONTEXT)) == ["ephemeralml-kms-context-v1", CONTEXT]
    assert len({context_bytes(one) for one in ({}, {"a": ""}, {"": "a"}, {"a": "b"}, {"ab": ""})}) == 5
    with pytest.raises(KeyReleaseError, match="KMS_REFUSED_REQUEST"):
        context_bytes({"a": "x" * 4096})


# --------------------------------------------------------------------- STS says no


@pytest.mark.parametrize(
    ("says", "why"),
    [
        ({"submods/container/image_digest": OTHER}, "MEASUREMENT_MISMATCH"),
        ({"dbgstat": "enabled"}, "DEBUG"),
        ({"submods/confidential_space/support_attributes": ["USABLE"]}, "SUPPORT_ATTRIBUTE_MISSING"),
        ({"google_service_accounts": ["x@y"]}, "SERVICE_ACCOUNT_NOT_ALLOWED"),
        ({"hwmodel": "GCP_AMD_SEV"}, "HWMODEL_NOT_ALLOWED"),
        ({"secboot": False}, "SECURE_BOOT_OFF"),
        ({"exp": 1_700_000_001, "iat": 1_699_999_000, "nbf": 1_700_000_001 - 1}, None),
        ({"iat": 1_699_000_000, "nbf": 1_699_000_000, "exp": 1_699_003_600}, "TOKEN_EXPIRED"),
        ({"iss": "https://accounts.google.com"}, "WRONG_ISSUER"),
    ],
)
def test_the_attribute_condition_decides(
    connect: Connect, google: Google, tee: StandInLauncher, says: dict[str, object], why: str | None
) -> None:
    tee.says = says
    if why is None:
        assert connect().generate_data_key(CONTEXT).wrapped
        return
    assert refused(connect()).code == "KMS_DENIED"
    assert google.refused == [why]
    assert google.calls == ["sts"]


def test_the_providers_audience_decides(connect: Connect, google: Google) -> None:
    google.audience = "https://release.example"
    assert refused(connect()).code == "KMS_DENIED"
    assert google.refused == ["AUDIENCE_MISMATCH"]
    assert connect(token_audience="https://release.example").generate_data_key(CONTEXT).wrapped


def test_a_nonce_serves_once(connect: Connect, google: Google) -> None:
    release = connect(random=lambda size: b"r" * size)
    release.generate_data_key(CONTEXT)
    assert refused(release).code == "KMS_DENIED"
    assert google.refused == ["NONCE"]


class Replayed:
    """A launcher whose answers somebody else gives."""

    def __init__(self, answer: Callable[[str, list[str]], bytes]) -> None:
        self.answer = answer

    def token(self, *, audience: str, nonces: tuple[str, ...], kind: str) -> bytes:
        return self.answer(audience, list(nonces))


@pytest.mark.parametrize(
    "answer",
    [
        lambda audience, nonces: oidc({"aud": audience, "eat_nonce": "nonce:" + "00" * 32}),
        lambda audience, nonces: oidc({"aud": "https://verifiers.example", "eat_nonce": nonces}),
        lambda audience, nonces: oidc({"aud": audience, "eat_nonce": [*nonces, "n" * 10]}),
        lambda audience, nonces: oidc({"aud": audience, "eat_nonce": ...}),
        lambda audience, nonces: pki(changes={"aud": audience, "eat_nonce": nonces}),
        lambda audience, nonces: b"",
        lambda audience, nonces: b"no token",
        lambda audience, nonces: oidc({"aud": audience, "eat_nonce": nonces}) + b"&scope=everything",
    ],
)
def test_nothing_but_this_requests_token_is_sent(
    connect: Connect, google: Google, answer: Callable[[str, list[str]], bytes]
) -> None:
    assert refused(connect(Replayed(answer))).code == "KMS_BAD_TOKEN"
    assert google.calls == []


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (400, b"", "KMS_DENIED"),
        (401, b'{"error":"invalid_client"}', "KMS_DENIED"),
        (403, b"secret-words", "KMS_DENIED"),
        (302, b"", "KMS_DENIED"),
        (200, b"", "KMS_BAD_ANSWER"),
        (200, b"secret-words", "KMS_BAD_ANSWER"),
        (200, b"[]", "KMS_BAD_ANSWER"),
        (200, b"null", "KMS_BAD_ANSWER"),
        (200, b"[" * 60_000, "KMS_BAD_ANSWER"),
        (400, b"[" * 60_000, "KMS_BAD_ANSWER"),
        (200, b"\xff", "KMS_BAD_ANSWER"),
        (200, b"{}", "KMS_BAD_ANSWER"),
        (200, b'{"access_token":"a"}', "KMS_BAD_ANSWER"),
        (200, b'{"access_token":"a","expires_in":"soon"}', "KMS_BAD_ANSWER"),
        (200, b'{"access_token":"a","expires_in":1e300}', "KMS_BAD_ANSWER"),
        (200, b'{"access_token":1,"expires_in":3600}', "KMS_BAD_ANSWER"),
        (200, b'{"access_token":"","expires_in":3600}', "KMS_BAD_ANSWER"),
        (200, b'{"access_token":"a\\r\\nx: y","expires_in":3600}', "KMS_BAD_ANSWER"),
        (200, b'{"access_token":"\\u00ef","expires_in":3600}', "KMS_BAD_ANSWER"),
        (200, json.dumps({"access_token": "a" * 20_000, "expires_in": 1}).encode(), "KMS_BAD_ANSWER"),
        (200, b'{"access_token":"stranger","expires_in":3600}', "KMS_CREDENTIALS"),
    ],
)
def test_other_answers_of_sts(connect: Connect, google: Google, status: int, body: bytes, code: str) -> None:
    google.sts_answers = [(status, body)]
    error = refused(connect())
    assert (error.code, error.retriable) == (code, False)
    assert google.calls[0] == "sts"
    assert google.calls.count("sts") == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_sts_is_asked_again_with_another_token(
    connect: Connect, google: Google, tee: StandInLauncher, status: int
) -> None:
    google.sts_answers = [(status, b"secret-words")] * 2
    assert connect().generate_data_key(CONTEXT).wrapped
    assert google.calls == ["sts", "sts", "sts", "encrypt"]
    assert len({asked["nonces"][0] for asked in tee.asked}) == 3


def test_an_endless_answer_is_given_up(connect: Connect, google: Google) -> None:
    google.sts_answers = [(200, b" " * 70_000)] * 4
    assert refused(connect()).code == "KMS_UNAVAILABLE"


def test_no_launcher_is_said(connect: Connect, tmp_path: Path) -> None:
    error = refused(connect(Launcher(str(tmp_path / "none"))))
    assert (type(error), error.code) == (ConfigurationError, "NO_LAUNCHER")


def test_a_busy_launcher_is_asked_again(connect: Connect, tee: StandInLauncher, google: Google) -> None:
    tee.status = 500
    error = refused(connect())
    assert (error.code, error.retriable, len(tee.asked)) == ("LAUNCHER_UNAVAILABLE", True, 4)
    assert google.calls == []


# --------------------------------------------------------------------- service account


def test_a_service_account_may_stand_between(connect: Connect, google: Google) -> None:
    google.allowed_to_decrypt = {SERVICE_ACCOUNT}
    assert refused(connect()).code == "KMS_DENIED"
    release = connect(service_account=SERVICE_ACCOUNT)
    key = release.generate_data_key(CONTEXT)
    assert release.decrypt(key.wrapped, CONTEXT) == key.plaintext
    assert google.calls == ["sts", "encrypt", "sts", "iam", "encrypt", "sts", "iam", "decrypt"]


def test_iam_says_no(connect: Connect) -> None:
    assert refused(connect(service_account="other@owner.iam.gserviceaccount.com")).code == "KMS_DENIED"


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (200, b"{}", "KMS_DENIED"),
        (200, b"secret-words", "KMS_DENIED"),
        (403, b"secret-words", "KMS_DENIED"),
        (200, b'{"accessToken":"a b","expireTime":"2100-01-01T00:00:00Z"}', "KMS_BAD_ANSWER"),
    ],
)
def test_other_answers_of_iam(connect: Connect, google: Google, status: int, body: bytes, code: str) -> None:
    google.iam_answers = [(status, body)]
    assert refused(connect(service_account=SERVICE_ACCOUNT)).code == code


# --------------------------------------------------------------------- KMS says no


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (grpc.StatusCode.PERMISSION_DENIED, "KMS_DENIED"),
        (grpc.StatusCode.UNAUTHENTICATED, "KMS_CREDENTIALS"),
        (grpc.StatusCode.NOT_FOUND, "KMS_KEY_UNUSABLE"),
        (grpc.StatusCode.FAILED_PRECONDITION, "KMS_KEY_UNUSABLE"),
        (grpc.StatusCode.INVALID_ARGUMENT, None),
        (grpc.StatusCode.UNIMPLEMENTED, "KMS_REFUSED_REQUEST"),
        (grpc.StatusCode.OUT_OF_RANGE, "KMS_REFUSED_REQUEST"),
        (grpc.StatusCode.DATA_LOSS, "KMS_REFUSED_REQUEST"),
    ],
)
@pytest.mark.parametrize("wrapped", [None, b"w" * 60])
def test_refusals_have_codes_and_are_final(
    connect: Connect, google: Google, status: grpc.StatusCode, code: str | None, wrapped: bytes | None
) -> None:
    code = code or ("KMS_REFUSED_REQUEST" if wrapped is None else "KMS_WRONG_BLOB")
    google.failures = [status] * 4
    error = refused(connect(), wrapped)
    assert (type(error), error.code, error.retriable) == (KeyReleaseError, code, False)
    assert len(google.failures) == 3


@pytest.mark.parametrize(
    "status",
    [
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    ],
)
def test_a_busy_kms_is_asked_again_with_another_token(
    connect: Connect, google: Google, status: grpc.StatusCode
) -> None:
    google.failures = [status]
    assert connect().generate_data_key(CONTEXT).wrapped
    assert google.calls == ["sts", "encrypt", "sts", "encrypt"]
    assert google.requests[0].plaintext == google.requests[1].plaintext
    assert len(google.principals) == 2


def test_a_disabled_key_is_told_from_a_denial(connect: Connect, google: Google) -> None:
    google.key = KEY + "2"
    assert refused(connect()).code == "KMS_KEY_UNUSABLE"


@pytest.mark.parametrize("context", [{}, CONTEXT | {"epoch": "2"}, CONTEXT | {"extra": ""}, {"epoch": "1"}])
def test_another_context_does_not_unwrap(connect: Connect, context: dict[str, str]) -> None:
    release = connect()
    key = release.generate_data_key(CONTEXT)
    with pytest.raises(KeyReleaseError, match="KMS_WRONG_BLOB"):
        release.decrypt(key.wrapped, context)


def test_a_changed_blob_does_not_unwrap(connect: Connect) -> None:
    release = connect()
    wrapped = release.generate_data_key(CONTEXT).wrapped
    changed = wrapped[:-1] + bytes([wrapped[-1] ^ 1])
    assert refused(release, changed).code == "KMS_WRONG_BLOB"


@pytest.mark.parametrize("wrapped", [b"", b"w" * 65_537])
def test_what_cannot_be_a_wrapped_key_is_not_sent(connect: Connect, google: Google, wrapped: bytes) -> None:
    assert refused(connect(), wrapped).code == "KMS_REFUSED_REQUEST"
    assert google.calls == []


# --------------------------------------------------------------------- the KMS's answers are checked


def changed(**fields: Any) -> Callable[[Any], None]:
    """Return a change to an answer of the KMS."""

    def change(answer: Any) -> None:
        for name, value in fields.items():
            setattr(answer, name, value)

    return change


PLANTED = b"p" * 32


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"verified_plaintext_crc32c": False}, "KMS_CORRUPTED"),
        ({"verified_additional_authenticated_data_crc32c": False}, "KMS_CORRUPTED"),
        ({"ciphertext": b"another"}, "KMS_CORRUPTED"),
        ({"ciphertext_crc32c": 0}, "KMS_CORRUPTED"),
        ({"ciphertext_crc32c": None}, "KMS_CORRUPTED"),
        ({"ciphertext_crc32c": -1}, "KMS_CORRUPTED"),
        ({"name": KEY + "2/cryptoKeyVersions/1"}, "KMS_BAD_ANSWER"),
        ({"name": KEY}, "KMS_BAD_ANSWER"),
        ({"name": ""}, "KMS_BAD_ANSWER"),
        ({"ciphertext": b"", "ciphertext_crc32c": 0}, "KMS_BAD_ANSWER"),
        ({"ciphertext": b"x" * 65_537, "ciphertext_crc32c": crc(b"x" * 65_537)}, "KMS_BAD_ANSWER"),
        ({"ciphertext": b"x" * 140_000}, "KMS_THROTTLED"),  # gRPC's own word for an answer over the limit
    ],
)
def test_answers_to_encrypt_are_checked(
    connect: Connect, google: Google, fields: dict[str, Any], code: str
) -> None:
    google.change_encrypt = changed(**fields)
    assert refused(connect()).code == code


def test_a_kms_that_wraps_nothing_is_found_out(connect: Connect, google: Google) -> None:
    def echo(answer: Any) -> None:
        plain = b"header" + google.requests[-1].plaintext
        answer.ciphertext, answer.ciphertext_crc32c = plain, crc(plain)

    google.change_encrypt = echo
    assert refused(connect()).code == "KMS_RETURNED_PLAINTEXT"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"plaintext": PLANTED}, "KMS_CORRUPTED"),
        ({"plaintext_crc32c": None}, "KMS_CORRUPTED"),
        ({"plaintext_crc32c": 1}, "KMS_CORRUPTED"),
        ({"plaintext": b"", "plaintext_crc32c": 0}, "KMS_BAD_ANSWER"),
        ({"plaintext": b"p" * 31, "plaintext_crc32c": crc(b"p" * 31)}, "KMS_BAD_ANSWER"),
        ({"plaintext": b"p" * 33, "plaintext_crc32c": crc(b"p" * 33)}, "KMS_BAD_ANSWER"),
    ],
)
def test_answers_to_decrypt_are_checked(
    connect: Connect, google: Google, fields: dict[str, Any], code: str
) -> None:
    release = connect()
    wrapped = release.generate_data_key(CONTEXT).wrapped
    google.change_decrypt = changed(**fields)
    assert refused(release, wrapped).code == code


def test_an_accident_is_asked_again(connect: Connect, google: Google) -> None:
    release = connect()
    key = release.generate_data_key(CONTEXT)
    answers = [changed(plaintext_crc32c=1)]
    google.change_decrypt = lambda answer: answers.pop()(answer) if answers else None
    assert release.decrypt(key.wrapped, CONTEXT) == key.plaintext


# --------------------------------------------------------------------- deadline and breaker


def test_no_attempt_is_begun_that_could_not_end_in_time(connect: Connect, google: Google) -> None:
    clock = [0.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    def monotonic() -> float:
        clock[0] += 4.0  # every look takes a while
        return clock[0]

    google.failures = [grpc.StatusCode.UNAVAILABLE] * 9
    assert refused(connect(deadline_s=12.0, monotonic=monotonic, sleep=sleep)).code == "KMS_UNAVAILABLE"
    assert len(google.failures) == 7


def test_a_kms_that_keeps_failing_is_left_alone(connect: Connect, google: Google) -> None:
    google.failures = [grpc.StatusCode.UNAVAILABLE] * 20
    release = connect()
    for _ in range(3):
        assert refused(release).code == "KMS_UNAVAILABLE"
    asked = len(google.calls)
    error = refused(release)
    assert (error.code, error.retriable, len(google.calls)) == ("KMS_UNAVAILABLE", True, asked)


def test_being_asked_too_often_has_its_own_code(connect: Connect, google: Google) -> None:
    google.failures = [grpc.StatusCode.RESOURCE_EXHAUSTED] * 4
    error = refused(connect())
    assert (error.code, error.retriable) == ("KMS_THROTTLED", True)
    google.sts_answers = [(429, b"")] * 4
    error = refused(connect())
    assert (error.code, error.retriable) == ("KMS_THROTTLED", True)


def test_keys_of_one_kms_share_a_breaker(connect: Connect, google: Google) -> None:
    shared = Patience(attempts=1)
    fleet, model = connect(patience=shared), connect(patience=shared)
    google.failures = [grpc.StatusCode.UNAVAILABLE] * 3
    for _ in range(3):
        assert refused(fleet).code == "KMS_UNAVAILABLE"
    asked = len(google.calls)
    assert refused(model).code == "KMS_UNAVAILABLE"
    assert len(google.calls) == asked
    assert connect().generate_data_key(CONTEXT).wrapped


def test_a_kms_that_says_no_is_not_left_alone(connect: Connect, google: Google) -> None:
    google.failures = [grpc.StatusCode.PERMISSION_DENIED] * 6
    release = connect()
    for _ in range(6):
        assert refused(release).code == "KMS_DENIED"
    assert release.generate_data_key(CONTEXT).wrapped


def test_nobody_there(connect: Connect) -> None:
    release = connect(kms_endpoint="http://127.0.0.1:9", deadline_s=3)
    error = refused(release)
    assert (error.code, error.retriable) == ("KMS_UNAVAILABLE", True)


def test_a_closed_one_is_not_asked(connect: Connect) -> None:
    release = connect()
    release.close()
    assert refused(release).code == "KMS_BAD_ANSWER"


def test_the_library_asks_no_address_of_its_own() -> None:
    """It would look up where a workload may run; a TEE tells nobody that it is there."""
    transport = _Transport({"https://sts.googleapis.com/v1/token"}, 1.0)
    for url, method in (("https://iamcredentials.googleapis.com/", "POST"), (STS_URL, "GET")):
        with pytest.raises(KeyReleaseError, match="KMS_REFUSED_REQUEST"):
            transport(url, method)


# --------------------------------------------------------------------- making one, and the owner's side


def test_plain_arguments_make_one(tee: StandInLauncher, addresses: Addresses) -> None:
    release = make_gcp_release(
        key_name=KEY,
        provider=PROVIDER,
        patience=gcp_patience(30),
        launcher_socket=tee.path,
        kms_endpoint=addresses.kms,
        sts_url=f"{addresses.web}/v1/token",
        evidence_audience="https://verifiers.example",
    )
    key = release.generate_data_key(CONTEXT)
    assert release.decrypt(key.wrapped, CONTEXT) == key.plaintext
    release.close()


def test_published_evidence_must_be_no_credential() -> None:
    with pytest.raises(ConfigurationError, match="AUDIENCE_REUSED"):
        make_gcp_release(key_name=KEY, provider=PROVIDER, evidence_audience=AUDIENCE)


def test_the_owner_wraps_and_only_a_worker_unwraps(
    connect: Connect, google: Google, addresses: Addresses
) -> None:
    owner = google.give("owner")
    key = owner_data_key_gcp(KEY, CONTEXT, access_token=owner, kms_endpoint=addresses.kms)
    assert connect().decrypt(key.wrapped, CONTEXT) == key.plaintext
    with pytest.raises(KeyReleaseError, match="KMS_CREDENTIALS"):
        owner_data_key_gcp(KEY, CONTEXT, access_token="stranger", kms_endpoint=addresses.kms)
