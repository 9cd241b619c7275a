"""The audit of a KMS: seven calls, what each must come to, and what it came to.

The same calls go to the local KMS and to AWS. A row whose evidence cannot be made where
the audit runs is reported as such and never as passed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ...wire.errors import Error
from ..attest import Attester
from .aws_settings import AwsSettings
from .boto import kms_answer, make_client
from .cms import open_enveloped

RELEASED: Final = "released"
DENIED: Final = "AccessDeniedException"
INVALID: Final = "ValidationException"
NOT_POSSIBLE: Final = "not possible here"
_KEY_BYTES: Final = 32

Verdict = Literal["ok", "FAILED", "not possible here"]


@dataclass(frozen=True, slots=True)
class Row:
    """One call of the audit: what was sent, what must come of it, what did."""

    name: str
    expected: str
    got: str

    @property
    def verdict(self) -> Verdict:
        """Whether it came out as it must."""
        if self.got == NOT_POSSIBLE:
            return "not possible here"
        return "ok" if self.got == self.expected else "FAILED"


def audit_kms(
    settings: AwsSettings,
    key_id: str,
    attester: Attester,
    *,
    wrong: Attester | None = None,
    debug: Attester | None = None,
    single_use: bool = False,
) -> tuple[Row, ...]:
    """Make the audit's calls (``GenerateDataKey``) and return what came of them.

    :param attester: of the image that the key policy names.
    :param wrong: of another image. :param debug: of a debug enclave. None: not possible here.
    :param single_use: whether the KMS is said to take documents once, which AWS does not.
    :raises ConfigurationError: settings, credentials or the TEE's device are missing.
    """
    client = make_client(settings)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    good = attester.attest(public_key=spki)
    flipped = attester.attest(public_key=spki)
    flipped = flipped[:-1] + bytes((flipped[-1] ^ 1,))  # the last byte is of the signature

    def ask(document: bytes | None) -> str:
        return _came_to(lambda: _call(client, key_id, document), key)

    def ask_as(other: Attester | None) -> str:
        return NOT_POSSIBLE if other is None else ask(other.attest(public_key=spki))

    try:
        return (
            Row("correct PCR0", RELEASED, ask(good)),
            Row("wrong PCR0", DENIED, ask_as(wrong)),
            Row("no attestation", DENIED, ask(None)),
            Row("random bytes", INVALID, ask(os.urandom(4096))),
            Row("one bit flipped", INVALID, ask(flipped)),
            Row("replayed document", INVALID if single_use else RELEASED, ask(good)),
            Row("debug document (zero PCRs)", DENIED, ask_as(debug)),
        )
    finally:
        client.close()


def _call(client: Any, key_id: str, document: bytes | None) -> Any:
    values: dict[str, Any] = {"KeyId": key_id, "NumberOfBytes": _KEY_BYTES}
    values["EncryptionContext"] = {"purpose": "ephemeralml-kms-audit"}
    if document is not None:
        values["Recipient"] = {
            "KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256",
            "AttestationDocument": document,
        }
    return client.generate_data_key(**values)


def _came_to(call: Callable[[], Any], key: RSAPrivateKey) -> str:
    """Return ``released``, AWS's name of the refusal, or our code of what went wrong."""
    from botocore.exceptions import ClientError

    refused: list[str] = []

    def noted() -> Any:
        try:
            return call()
        except ClientError as error:
            refused.append(str(error.response.get("Error", {}).get("Code", "")))
            raise

    try:
        answer = kms_answer(noted)
        if answer.get("Plaintext"):
            return "released in the clear"
        envelope = answer.get("CiphertextForRecipient")
        plaintext = open_enveloped(envelope if isinstance(envelope, bytes) else b"", key)
        return RELEASED if len(plaintext) == _KEY_BYTES else "KMS_BAD_ANSWER"
    except Error as error:
        name = refused[0] if refused else ""
        return name if name.isascii() and name.isalnum() and len(name) <= 64 else error.code
