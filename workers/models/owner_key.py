"""The owner's own access to a model key, outside any TEE: to verify what was packaged."""

from __future__ import annotations

from collections.abc import Mapping

from ...attestation.key_release.aws_settings import AwsSettings
from ...attestation.key_release.boto import kms_answer, make_client
from ...wire.errors import KeyReleaseError


def owner_unwrap(wrapped: bytes, context: Mapping[str, str], settings: AwsSettings) -> bytes:
    """Return a model key to its owner by the KMS's ``Decrypt``, without attestation.

    :raises KeyReleaseError: the KMS refuses, or cannot be reached. :raises ConfigurationError: settings.
    """
    client = make_client(settings, attempts=3)
    try:
        answer = kms_answer(lambda: client.decrypt(CiphertextBlob=wrapped, EncryptionContext=dict(context)))
    finally:
        client.close()
    key = answer.get("Plaintext")
    if not isinstance(key, bytes):
        raise KeyReleaseError("KMS_BAD_ANSWER", "the KMS's answer holds no key")
    return key
