"""The audit table: what the KMS releases and what it refuses, through real boto3 on loopback."""

from __future__ import annotations

import base64
import json
import os
import socket
import stat
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ephemeralml.attestation.key_release.aws import AwsKms, owner_data_key
from ephemeralml.attestation.key_release.cms import open_enveloped
from ephemeralml.attestation.key_release.local_kms import LocalKms, Principal, serve
from ephemeralml.attestation.key_release.local_kms.documents import CACHE_ENTRIES
from ephemeralml.attestation.key_release.local_kms.requests import MAX_BODY_BYTES
from ephemeralml.attestation.nitro.parse import parse
from ephemeralml.attestation.simulated import DevelopmentRoot, SimulatedAttester, development_pcrs
from ephemeralml.wire.encoding import encode
from ephemeralml.wire.errors import ConfigurationError, KeyReleaseError

from .conftest import CONTEXT, IMAGE, OWNER, STRANGER, WORKER, Connect, StartKms

P384_ORDER = (
    0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973
)
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def spki(key: Any) -> bytes:
    return bytes(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def recipient(document: bytes) -> dict[str, Any]:
    return {"KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256", "AttestationDocument": document}


def aws_code(call: Callable[[], Any]) -> str:
    from botocore.exceptions import ClientError

    with pytest.raises(ClientError) as caught:
        call()
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    return str(caught.value.response["Error"]["Code"])


def release(client: Any, document: bytes | None, **values: Any) -> Any:
    given = {"KeyId": "alias/fleet", "NumberOfBytes": 32, "EncryptionContext": CONTEXT}
    if document is not None:
        given["Recipient"] = recipient(document)
    return client.generate_data_key(**(given | values))


def refused(call: Callable[[], Any]) -> KeyReleaseError:
    with pytest.raises(KeyReleaseError) as caught:
        call()
    return caught.value


# ------------------------------------------------------------- the whole way


def test_right_measurement_gets_the_key(kms: LocalKms, attester: SimulatedAttester, connect: Connect) -> None:
    worker = connect(attester, kms)
    made = worker.generate_data_key(CONTEXT)
    assert len(made.plaintext) == 32
    assert made.plaintext not in made.wrapped
    assert worker.decrypt(made.wrapped, CONTEXT) == made.plaintext


def test_another_worker_adopts_after_a_restart_of_the_kms(
    start_kms: StartKms, attester: SimulatedAttester, connect: Connect
) -> None:
    first = start_kms()
    made = connect(attester, first).generate_data_key(CONTEXT)
    first.stop()
    second = start_kms()
    assert connect(attester, second).decrypt(made.wrapped, CONTEXT) == made.plaintext


def test_model_key_from_owner_to_worker(kms: LocalKms, attester: SimulatedAttester, connect: Connect) -> None:
    context = {"model": "m", "manifest": "00"}
    made = owner_data_key(
        "alias/model",
        context,
        endpoint_url=kms.endpoint,
        region="us-east-1",
        access_key_id=OWNER.access_key_id,
        secret_access_key=OWNER.secret_access_key,
    )
    worker = connect(attester, kms, "alias/model")
    assert worker.decrypt(made.wrapped, context) == made.plaintext
    assert refused(lambda: worker.generate_data_key(context)).code == "KMS_DENIED"


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "pcrs",
    [
        development_pcrs("another-image"),
        {},  # a debug enclave reads zero
        development_pcrs(IMAGE) | {0: bytes(48)},
        development_pcrs(IMAGE) | {2: bytes(48)},
    ],
)
def test_wrong_or_debug_measurement_is_denied(
    kms: LocalKms,
    root: DevelopmentRoot,
    attester: SimulatedAttester,
    connect: Connect,
    pcrs: dict[int, bytes],
) -> None:
    made = connect(attester, kms).generate_data_key(CONTEXT)
    other = connect(SimulatedAttester(root, pcrs), kms)
    assert refused(lambda: other.generate_data_key(CONTEXT)).code == "KMS_DENIED"
    error = refused(lambda: other.decrypt(made.wrapped, CONTEXT))
    assert (error.code, error.retriable) == ("KMS_DENIED", False)


def test_without_attestation_is_denied(kms: LocalKms, raw_client: Callable[[Principal], Any]) -> None:
    client = raw_client(WORKER)
    assert aws_code(lambda: release(client, None)) == "AccessDeniedException"


@pytest.mark.parametrize("principal", [WORKER, OWNER, STRANGER])
def test_nobody_may_encrypt_under_the_fleet_key(
    raw_client: Callable[[Principal], Any], principal: Principal
) -> None:
    client = raw_client(principal)
    planted = {"KeyId": "alias/fleet", "Plaintext": b"k" * 32, "EncryptionContext": CONTEXT}
    assert aws_code(lambda: client.encrypt(**planted)) == "AccessDeniedException"


def test_owner_and_stranger_get_no_fleet_key(
    kms: LocalKms, attester: SimulatedAttester, connect: Connect
) -> None:
    for principal in (OWNER, STRANGER):
        client = connect(attester, kms, principal=principal)
        assert refused(partial(client.generate_data_key, CONTEXT)).code == "KMS_DENIED"


def test_random_bytes_and_flipped_bits_are_invalid(
    raw_client: Callable[[Principal], Any], attester: SimulatedAttester
) -> None:
    client = raw_client(WORKER)
    assert aws_code(lambda: release(client, os.urandom(4096))) == "ValidationException"
    good = attester.attest(public_key=spki(RSA_KEY))
    for at in (0, 5, len(good) // 3, len(good) // 2, len(good) - 1):
        flipped = good[:at] + bytes((good[at] ^ 1,)) + good[at + 1 :]
        assert aws_code(partial(release, client, flipped)) == "ValidationException"


def test_another_root_is_invalid(kms: LocalKms, connect: Connect) -> None:
    foreign = SimulatedAttester(DevelopmentRoot.create(), development_pcrs(IMAGE))
    error = refused(lambda: connect(foreign, kms).generate_data_key(CONTEXT))
    assert error.code == "KMS_REFUSED_REQUEST"


def test_a_document_is_taken_once(
    raw_client: Callable[[Principal], Any], attester: SimulatedAttester
) -> None:
    client = raw_client(WORKER)
    document = attester.attest(public_key=spki(RSA_KEY))
    answer = release(client, document)
    assert "Plaintext" not in answer
    assert len(open_enveloped(answer["CiphertextForRecipient"], RSA_KEY)) == 32
    assert aws_code(lambda: release(client, document)) == "ValidationException"


def test_a_document_in_other_clothes_is_the_same_document(
    raw_client: Callable[[Principal], Any], attester: SimulatedAttester
) -> None:
    """ECDSA signatures have a twin, and the outer array has other encodings: both still verify."""
    client = raw_client(WORKER)
    document = attester.attest(public_key=spki(RSA_KEY))
    release(client, document)
    parsed = parse(document)
    s = P384_ORDER - int.from_bytes(parsed.signature[48:], "big")
    twin = encode([parsed.protected_bytes, {}, parsed.payload, parsed.signature[:48] + s.to_bytes(48, "big")])
    indefinite = b"\x9f" + document[1:] + b"\xff"
    for disguised in (twin, indefinite):
        assert disguised != document
        assert aws_code(partial(release, client, disguised)) == "ValidationException"


def test_a_document_is_taken_once_by_parallel_callers(
    raw_client: Callable[[Principal], Any], attester: SimulatedAttester
) -> None:
    from botocore.exceptions import ClientError

    client = raw_client(WORKER)
    document = attester.attest(public_key=spki(RSA_KEY))

    def attempt(_: int) -> bool:
        try:
            release(client, document)
        except ClientError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(16))) == 1


def test_single_use_can_be_turned_off(start_kms: StartKms, root: DevelopmentRoot, connect: Connect) -> None:
    kms = start_kms(single_use=False)

    class Recorded(SimulatedAttester):
        """Always the first document: the answer then is for a key that is gone."""

        document: bytes | None = None

        def attest(self, **values: bytes | None) -> bytes:
            self.document = self.document or super().attest(**values)
            return self.document

    worker = connect(Recorded(root, development_pcrs(IMAGE)), kms)
    worker.generate_data_key(CONTEXT)
    # Released again by the KMS, and of no use to whoever replays it.
    assert refused(lambda: worker.generate_data_key(CONTEXT)).code == "CMS_NOT_OPENED"


def test_a_denied_call_does_not_use_the_document_up(
    raw_client: Callable[[Principal], Any], attester: SimulatedAttester
) -> None:
    document = attester.attest(public_key=spki(RSA_KEY))
    assert aws_code(lambda: release(raw_client(STRANGER), document)) == "AccessDeniedException"
    assert release(raw_client(WORKER), document)["CiphertextForRecipient"]


@pytest.mark.parametrize("shift", [-301, 61, -4000])
def test_old_and_future_documents_are_invalid(
    kms: LocalKms, root: DevelopmentRoot, connect: Connect, shift: int
) -> None:
    other_clock = SimulatedAttester(root, development_pcrs(IMAGE), now=lambda: time.time() + shift)
    error = refused(lambda: connect(other_clock, kms).generate_data_key(CONTEXT))
    assert error.code == "KMS_REFUSED_REQUEST"


def test_a_restart_does_not_forget_what_was_used(
    start_kms: StartKms, root: DevelopmentRoot, connect: Connect
) -> None:
    """It remembers nothing, and therefore takes no document from before."""
    earlier = SimulatedAttester(root, development_pcrs(IMAGE), now=lambda: time.time() - 20)
    error = refused(lambda: connect(earlier, start_kms()).generate_data_key(CONTEXT))
    assert error.code == "KMS_REFUSED_REQUEST"
    relaxed = start_kms(single_use=False)
    assert connect(earlier, relaxed).generate_data_key(CONTEXT)


@pytest.mark.parametrize(
    "public_key", [None, b"", b"\x30\x00", spki(ec.generate_private_key(ec.SECP256R1()))]
)
def test_documents_without_an_rsa_key_are_invalid(
    raw_client: Callable[[Principal], Any], attester: SimulatedAttester, public_key: bytes | None
) -> None:
    document = attester.attest(public_key=public_key)
    assert aws_code(lambda: release(raw_client(WORKER), document)) == "ValidationException"


def test_context_and_blob_are_bound(
    kms: LocalKms, attester: SimulatedAttester, connect: Connect, raw_client: Callable[[Principal], Any]
) -> None:
    worker = connect(attester, kms)
    wrapped = worker.generate_data_key(CONTEXT).wrapped
    for blob, context in (
        (wrapped, CONTEXT | {"pool": "other"}),
        (wrapped, {}),
        (wrapped[:-1], CONTEXT),
        (wrapped[:-1] + bytes((wrapped[-1] ^ 1,)), CONTEXT),
        (wrapped[:4] + b"\xff" + wrapped[5:], CONTEXT),
        (b"\x02" + wrapped[1:], CONTEXT),
        (b"x", CONTEXT),
    ):
        error = refused(partial(worker.decrypt, blob, context))
        assert error.code == "KMS_WRONG_BLOB"
    assert refused(lambda: worker.decrypt(b"", CONTEXT)).code == "KMS_REFUSED_REQUEST"
    model = raw_client(WORKER)
    call = {"KeyId": "alias/model", "CiphertextBlob": wrapped, "EncryptionContext": CONTEXT}
    assert aws_code(lambda: model.decrypt(**call)) == "IncorrectKeyException"


def test_key_names(kms: LocalKms, raw_client: Callable[[Principal], Any]) -> None:
    owner = raw_client(OWNER)
    metadata = owner.describe_key(KeyId="alias/model")["KeyMetadata"]
    assert metadata["KeyState"] == "Enabled"
    alias_arn = metadata["Arn"].split("key/")[0] + "alias/model"
    for name in (metadata["KeyId"], metadata["Arn"], alias_arn):
        assert owner.describe_key(KeyId=name)["KeyMetadata"]["Arn"] == metadata["Arn"]
    assert aws_code(lambda: owner.describe_key(KeyId="alias/none")) == "NotFoundException"
    spec = owner.generate_data_key(KeyId="alias/model", KeySpec="AES_256")
    assert len(spec["Plaintext"]) == 32
    assert aws_code(lambda: owner.generate_data_key(KeyId="alias/model")) == "ValidationException"


# ------------------------------------------------------ signatures and HTTP


def test_wrong_secret_and_unknown_access_key(
    kms: LocalKms, attester: SimulatedAttester, connect: Connect, raw_client: Callable[[Principal], Any]
) -> None:
    wrong = Principal("worker", WORKER.access_key_id, "not the secret")
    unknown = Principal("worker", "AKIAUNKNOWN", WORKER.secret_access_key)
    document = attester.attest(public_key=spki(RSA_KEY))
    assert aws_code(lambda: release(raw_client(wrong), document)) == "InvalidSignatureException"
    assert aws_code(lambda: release(raw_client(unknown), document)) == "UnrecognizedClientException"
    assert (
        refused(lambda: connect(attester, kms, principal=wrong).generate_data_key(CONTEXT)).code
        == "KMS_CREDENTIALS"
    )


def post(
    kms: LocalKms, body: bytes, headers: dict[str, str] | None = None, path: str = "/"
) -> tuple[int, Any]:
    request = urllib.request.Request(kms.endpoint + path, data=body, headers=headers or {}, method="POST")  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def signed(kms: LocalKms, principal: Principal, target: str, body: bytes, **changes: str) -> dict[str, str]:
    """Return headers that botocore's own code signed."""
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    request = AWSRequest("POST", kms.endpoint + "/", data=body, headers={"X-Amz-Target": target})
    credentials = Credentials(principal.access_key_id, principal.secret_access_key)
    SigV4Auth(credentials, "kms", changes.pop("region", "us-east-1")).add_auth(request)
    return dict(request.headers.items()) | changes


TARGET = "TrentService.DescribeKey"
BODY = b'{"KeyId": "alias/model"}'


def test_a_signed_request_of_our_own_passes(kms: LocalKms) -> None:
    status, answer = post(kms, BODY, signed(kms, OWNER, TARGET, BODY))
    assert (status, answer["KeyMetadata"]["KeyUsage"]) == (200, "ENCRYPT_DECRYPT")


def test_changed_requests_are_refused(kms: LocalKms) -> None:
    good = signed(kms, OWNER, TARGET, BODY)
    unsigned = {name: value for name, value in good.items() if name != "Authorization"}
    for headers, body, kind in (
        (unsigned, BODY, "MissingAuthenticationTokenException"),
        (good | {"Authorization": "Bearer x"}, BODY, "IncompleteSignatureException"),
        (good, BODY + b" ", "InvalidSignatureException"),
        (good | {"X-Amz-Target": "TrentService.Encrypt"}, BODY, "InvalidSignatureException"),
        (good | {"Host": "elsewhere"}, BODY, "InvalidSignatureException"),
        (good | {"X-Amz-Date": "20200101T000000Z"}, BODY, "IncompleteSignatureException"),
        (signed(kms, OWNER, TARGET, BODY, region="eu-west-1"), BODY, "InvalidSignatureException"),
    ):
        status, answer = post(kms, body, headers)
        assert (status, answer["__type"]) == (400, kind)


def test_the_target_must_be_signed(kms: LocalKms) -> None:
    from ephemeralml.attestation.key_release.local_kms.sigv4 import canonical_request, sign

    date = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    headers = {"host": kms.endpoint.removeprefix("http://"), "x-amz-date": date, "x-amz-target": TARGET}
    names = ["host", "x-amz-date"]
    scope = f"{OWNER.access_key_id}/{date[:8]}/us-east-1/kms/aws4_request"
    signature = sign(OWNER.secret_access_key, "us-east-1", canonical_request(headers, names, BODY), date)
    headers["Authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders={';'.join(names)}, Signature={signature}"
    )
    assert post(kms, BODY, headers)[1]["__type"] == "IncompleteSignatureException"


def test_an_old_signature_is_refused(start_kms: StartKms) -> None:
    kms = start_kms(now=lambda: time.time() + 400)
    status, answer = post(kms, BODY, signed(kms, OWNER, TARGET, BODY))
    assert (status, answer["__type"]) == (400, "InvalidSignatureException")


@pytest.mark.parametrize(
    ("target", "body", "kind"),
    [
        ("TrentService.CreateKey", b"{}", "UnknownOperationException"),
        ("DynamoDB.GetItem", b"{}", "UnknownOperationException"),
        (TARGET, b"", "SerializationException"),
        (TARGET, b"[]", "SerializationException"),
        (TARGET, b"[" * 100_000, "SerializationException"),
        (TARGET, b"{}", "ValidationException"),
        (TARGET, b'{"KeyId": 5}', "ValidationException"),
        (TARGET, b'{"KeyId": "alias/model", "GrantTokens": ["x"]}', "ValidationException"),
        ("TrentService.Decrypt", b'{"CiphertextBlob": "!!"}', "ValidationException"),
        (
            "TrentService.Decrypt",
            b'{"CiphertextBlob": "eA==", "EncryptionContext": {"a": 1}}',
            "ValidationException",
        ),
        ("TrentService.Decrypt", b'{"CiphertextBlob": "eA==", "Recipient": {}}', "ValidationException"),
        (
            "TrentService.GenerateDataKey",
            b'{"KeyId": "alias/fleet", "NumberOfBytes": true}',
            "ValidationException",
        ),
        (
            "TrentService.GenerateDataKey",
            b'{"KeyId": "alias/fleet", "KeySpec": ["x"]}',
            "ValidationException",
        ),
        (
            "TrentService.GenerateDataKey",
            b'{"KeyId": "alias/fleet", "NumberOfBytes": 4096}',
            "ValidationException",
        ),
    ],
)
def test_malformed_requests(kms: LocalKms, target: str, body: bytes, kind: str) -> None:
    status, answer = post(kms, body, signed(kms, OWNER, target, body))
    assert (status, answer["__type"]) == (400, kind)


def test_http_limits(kms: LocalKms) -> None:
    assert post(kms, b"{}", path="/other")[0] == 400
    assert post(kms, b"", {"Content-Length": "-1"})[0] == 400
    assert post(kms, b"", {"Content-Length": "+1"})[0] == 400
    host, port = kms.endpoint.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(f"POST / HTTP/1.1\r\nContent-Length: {MAX_BODY_BYTES + 1}\r\n\r\n".encode())
        assert b" 413 " in connection.recv(256)
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nX-Amz-Date: a\r\nx-amz-date: b\r\nContent-Length: 0\r\n\r\n")
        assert b" 400 " in connection.recv(256)
    assert kms.endpoint


# ---------------------------------------------------------- on disk, life


def test_files_are_private_and_the_audit_log_holds_no_key(
    kms: LocalKms, attester: SimulatedAttester, connect: Connect, root: DevelopmentRoot
) -> None:
    made = connect(attester, kms).generate_data_key(CONTEXT)
    other = SimulatedAttester(root, development_pcrs("another-image"))
    refused(lambda: connect(other, kms).decrypt(made.wrapped, CONTEXT))
    folder = kms.config.directory
    for name in ("keys.json", "master.key", "audit.jsonl"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    lines = [json.loads(line) for line in (folder / "audit.jsonl").read_text().splitlines()]
    assert [(line["principal"], line["operation"], line["key"], line["outcome"]) for line in lines] == [
        ("worker", "GenerateDataKey", "alias/fleet", "released"),
        ("worker", "Decrypt", "alias/fleet", "AccessDeniedException"),
    ]
    assert lines[1]["pcr0"] == development_pcrs("another-image")[0].hex()
    text = (folder / "audit.jsonl").read_text()
    secrets = [made.plaintext, made.wrapped] + [
        base64.b64decode(key["wrapped"]) for key in json.loads((folder / "keys.json").read_text())["keys"]
    ]
    for secret in secrets:
        assert secret.hex() not in text
        assert base64.b64encode(secret).decode() not in text


def test_nothing_is_released_without_an_audit_line(
    kms: LocalKms, attester: SimulatedAttester, connect: Connect
) -> None:
    assert kms._server is not None
    kms._server.service._audit.close()
    replacement = os.open(os.devnull, os.O_RDONLY)
    kms._server.service._audit._file = replacement  # cannot be written to
    error = refused(lambda: connect(attester, kms, sleep=lambda _: None).generate_data_key(CONTEXT))
    assert (error.code, error.retriable) == ("KMS_UNAVAILABLE", True)


def test_the_cache_of_used_documents_is_bounded_and_closed(
    kms: LocalKms, attester: SimulatedAttester, connect: Connect
) -> None:
    assert kms._server is not None
    documents = kms._server.service._documents
    far = int(time.time()) + 10_000
    documents._used.update((number.to_bytes(32, "big"), far) for number in range(CACHE_ENTRIES))
    error = refused(lambda: connect(attester, kms, sleep=lambda _: None).generate_data_key(CONTEXT))
    assert error.code == "KMS_THROTTLED"
    for digest in documents._used:
        documents._used[digest] = 0
    connect(attester, kms).generate_data_key(CONTEXT)
    assert len(documents._used) == 1


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"keys": [{"id": 5}]}', '{"keys": [5]}'])
def test_a_damaged_or_exposed_key_file_is_refused(start_kms: StartKms, tmp_path: Path, text: str) -> None:
    folder = tmp_path / "kms"
    folder.mkdir(mode=0o700)
    file = folder / "keys.json"
    file.write_text(text)
    file.chmod(0o600)
    with pytest.raises(ConfigurationError) as caught:
        start_kms()
    assert caught.value.code == "KMS_STORE_UNUSABLE"
    file.chmod(0o644)
    with pytest.raises(ConfigurationError) as caught:
        start_kms()
    assert caught.value.code == "KMS_STORE_EXPOSED"


def test_bad_settings(start_kms: StartKms, tmp_path: Path) -> None:
    kms = start_kms()
    for settings, code in (
        ({"port": int(kms.endpoint.rsplit(":", 1)[1])}, "KMS_PORT_UNUSABLE"),
        ({"port": 70_000}, "KMS_PORT_UNUSABLE"),
        ({"roots": (b"short",)}, "BAD_FINGERPRINT"),
        ({"policies": {"alias/fleet": {}}}, "BAD_KEY_POLICY"),
        ({"principals": {"a": WORKER, "b": Principal("b", WORKER.access_key_id, "x")}}, "BAD_PRINCIPALS"),
        ({"principals": {"a": Principal("a", "AKIA", "")}}, "BAD_PRINCIPALS"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            start_kms(**settings)
        assert caught.value.code == code
    file = tmp_path / "a-file"
    file.touch()
    with pytest.raises(ConfigurationError) as caught:
        start_kms(directory=file)
    assert caught.value.code == "KMS_STORE_UNUSABLE"


def test_stopping_twice_and_asking_before_the_start(start_kms: StartKms) -> None:
    kms = start_kms()
    kms.stop()
    kms.stop()
    with pytest.raises(ConfigurationError):
        _ = kms.endpoint


def test_serve_blocks_until_interrupted(kms: LocalKms, tmp_path: Path) -> None:
    from dataclasses import replace

    seen: list[str] = []

    def ready(endpoint: str) -> None:
        seen.append(endpoint)
        raise KeyboardInterrupt

    serve(replace(kms.config, directory=tmp_path / "second"), ready=ready)
    assert seen[0].startswith("http://127.0.0.1:")


def test_principals_and_keys_do_not_show_their_secrets(kms: LocalKms) -> None:
    assert kms._server is not None
    store = kms._server.service._store
    for shown in (repr(WORKER), repr(kms.config), repr(store.find("alias/fleet", 0))):
        assert WORKER.secret_access_key not in shown
        assert "secret" not in shown.replace("secret_access_key", "")
    assert isinstance(AwsKms.__doc__, str)
