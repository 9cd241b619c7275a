"""Key release by AWS KMS (or the local KMS, which speaks the same protocol).

Every attempt makes a fresh RSA key and a fresh attestation document that carries
its public half; the answer is CMS to that key (AWS KMS Developer Guide,
"Cryptographic attestation support in AWS KMS"). Attempts are counted here and not
by botocore, which would send the same document again: a KMS that takes each
document once would have to refuse an honest repetition.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ...wire.errors import KeyReleaseError
from ..attest import Attester
from .boto import kms_answer, make_client
from .cms import open_enveloped
from .protocol import DataKey

DATA_KEY_BYTES: Final = 32
MAX_WRAPPED_BYTES: Final = 6144
DEFAULT_DEADLINE_S: Final = 30.0
_MAX_ATTEMPTS: Final = 4
_FIRST_PAUSE_S: Final = 0.2


class AwsKms:
    """Asks AWS KMS for keys as an attested TEE; a :class:`~.protocol.KeyRelease`.

    :param attester: makes the attestation documents.
    :param key_id: KMS key id, ARN or ``alias/…``.
    :param endpoint_url: another endpoint than AWS's own (a proxy in front of it, the local KMS).
    :param deadline_s: how long one call may take in all, in seconds, attempts included.
    :param monotonic: :param sleep: clock and pause, in seconds.
    :raises ConfigurationError: ``EXTRA_MISSING``, ``KMS_CREDENTIALS_INCOMPLETE`` or ``BAD_KMS_SETTINGS``.
    """

    def __init__(
        self,
        attester: Attester,
        key_id: str,
        *,
        endpoint_url: str | None = None,
        region: str | None = None,
        access_key_id: str | None = None,
        secret_access_key: str | None = None,
        session_token: str | None = None,
        deadline_s: float = DEFAULT_DEADLINE_S,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._attester = attester
        self._key_id = key_id
        self._deadline_s = deadline_s
        self._monotonic = monotonic
        self._sleep = sleep
        self._attempt_s = max(deadline_s / 3, 0.1)
        self._client = make_client(
            endpoint_url=endpoint_url,
            region=region,
            access_key_id=access_key_id,
            secret_access_key=secret_access_key,
            session_token=session_token,
            timeout_s=self._attempt_s / 2,
        )

    def generate_data_key(self, context: Mapping[str, str]) -> DataKey:
        """Return a fresh 32-byte key and its wrapped form.

        :param context: KMS encryption context; public, at most 8 KB.
        :raises KeyReleaseError: ``KMS_DENIED``, ``KMS_REFUSED_REQUEST``, ``KMS_KEY_UNUSABLE``,
            ``KMS_UNAVAILABLE`` (retriable), ``KMS_RETURNED_PLAINTEXT``, ``KMS_BAD_ANSWER`` or a code of
            :func:`.cms.open_enveloped`.
        """
        answer, plaintext = self._released(
            lambda recipient: self._client.generate_data_key(
                KeyId=self._key_id,
                EncryptionContext=dict(context),
                NumberOfBytes=DATA_KEY_BYTES,
                Recipient=cast(Any, recipient),
            )
        )
        return DataKey(_data_key(plaintext), _wrapped(answer))

    def decrypt(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        """Return the 32-byte key that ``wrapped`` holds.

        :param wrapped: what :meth:`generate_data_key` returned, at most 6144 bytes.
        :raises KeyReleaseError: as :meth:`generate_data_key`.
        """
        if not 0 < len(wrapped) <= MAX_WRAPPED_BYTES:
            raise KeyReleaseError("KMS_REFUSED_REQUEST", "a wrapped key has 1 to 6144 bytes")
        _, plaintext = self._released(
            lambda recipient: self._client.decrypt(
                KeyId=self._key_id,
                CiphertextBlob=wrapped,
                EncryptionContext=dict(context),
                Recipient=cast(Any, recipient),
            )
        )
        return _data_key(plaintext)

    def close(self) -> None:
        """Drop the connections."""
        self._client.close()

    def _released(self, call: Callable[[dict[str, object]], Any]) -> tuple[dict[str, Any], bytes]:
        """Attempt a call until it succeeds, fails for good or has no time left."""
        end = self._monotonic() + self._deadline_s
        for attempt in range(_MAX_ATTEMPTS):
            try:
                return self._attempt(call)
            except KeyReleaseError as error:
                # Jitter keeps a fleet that starts together from knocking together.
                pause = _FIRST_PAUSE_S * 2**attempt * (0.5 + random.random())  # noqa: S311
                last = attempt + 1 == _MAX_ATTEMPTS
                if not error.retriable or last or self._monotonic() + pause + self._attempt_s > end:
                    raise
            self._sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def _attempt(self, call: Callable[[dict[str, object]], Any]) -> tuple[dict[str, Any], bytes]:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        recipient: dict[str, object] = {
            "KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256",
            "AttestationDocument": self._attester.attest(public_key=spki),
        }
        answer = kms_answer(lambda: call(recipient))
        if answer.get("Plaintext"):
            raise KeyReleaseError(
                "KMS_RETURNED_PLAINTEXT", "the KMS answered in the clear; the key must not be used"
            )
        envelope = answer.get("CiphertextForRecipient")
        if not isinstance(envelope, bytes) or not envelope:
            raise KeyReleaseError("KMS_BAD_ANSWER", "the KMS's answer holds no envelope for this TEE")
        return answer, open_enveloped(envelope, key)


def owner_data_key(
    key_id: str,
    context: Mapping[str, str],
    *,
    endpoint_url: str | None = None,
    region: str | None = None,
    access_key_id: str | None = None,
    secret_access_key: str | None = None,
    session_token: str | None = None,
    timeout_s: float = 10.0,
) -> DataKey:
    """Return a data key to its owner, outside any TEE (the model owner, who packages the model).

    :param key_id: KMS key id, ARN or ``alias/…``. :param timeout_s: per attempt, in seconds.
    :raises KeyReleaseError: ``KMS_DENIED``, ``KMS_REFUSED_REQUEST``, ``KMS_KEY_UNUSABLE``,
        ``KMS_UNAVAILABLE`` (retriable) or ``KMS_BAD_ANSWER``.
    :raises ConfigurationError: as :class:`AwsKms`.
    """
    client = make_client(
        endpoint_url=endpoint_url,
        region=region,
        access_key_id=access_key_id,
        secret_access_key=secret_access_key,
        session_token=session_token,
        timeout_s=timeout_s,
        attempts=3,
    )
    try:
        answer = kms_answer(
            lambda: client.generate_data_key(
                KeyId=key_id, EncryptionContext=dict(context), NumberOfBytes=DATA_KEY_BYTES
            )
        )
    finally:
        client.close()
    return DataKey(_data_key(answer.get("Plaintext")), _wrapped(answer))


def _data_key(value: object) -> bytes:
    if not isinstance(value, bytes) or len(value) != DATA_KEY_BYTES:
        raise KeyReleaseError("KMS_BAD_ANSWER", "the KMS's answer holds no key of 32 bytes")
    return value


def _wrapped(answer: Mapping[str, Any]) -> bytes:
    wrapped = answer.get("CiphertextBlob")
    if not isinstance(wrapped, bytes) or not 0 < len(wrapped) <= MAX_WRAPPED_BYTES:
        raise KeyReleaseError("KMS_BAD_ANSWER", "the KMS's answer holds no wrapped key")
    return wrapped
