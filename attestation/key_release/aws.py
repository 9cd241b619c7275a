"""Key release by AWS KMS (or the local KMS, which speaks the same protocol).

Every attempt makes a fresh RSA key and a fresh attestation document that carries
its public half; the answer is CMS to that key (AWS KMS Developer Guide,
"Cryptographic attestation support in AWS KMS"). Attempts are counted here and not
by botocore, which would send the same document again: a KMS that takes each
document once would have to refuse an honest repetition.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, cast

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ...wire.errors import KeyReleaseError
from ..attest import Attester
from .aws_settings import AwsSettings
from .boto import kms_answer, make_client
from .cms import open_enveloped
from .protocol import DataKey
from .retry import DEFAULT_DEADLINE_S, Patience

DATA_KEY_BYTES: Final = 32
MAX_WRAPPED_BYTES: Final = 6144
_KEY_ALGORITHM: Final = "RSAES_OAEP_SHA_256"


class AwsKms:
    """Asks AWS KMS for keys as an attested TEE; a :class:`~.protocol.KeyRelease`.

    :param attester: makes the attestation documents.
    :param key_id: KMS key id, ARN or ``alias/…``.
    :param endpoint_url: another endpoint than AWS's own (a proxy in front of it, the local KMS).
    :param sts_endpoint: :param instance_metadata: :param role_arn: :param ca_bundle: :param proxy: see
        :class:`~.aws_settings.AwsSettings`.
    :param connect_timeout_s: :param read_timeout_s: of one attempt, in seconds; by default each a sixth of
        the deadline.
    :param deadline_s: how long one call may take in all, in seconds, attempts included.
    :param patience: shared by all that ask one endpoint, so that they share its circuit breaker; it then
        has the deadline. By default this object has its own.
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
        sts_endpoint: str | None = None,
        instance_metadata: str | None = None,
        role_arn: str | None = None,
        ca_bundle: Path | None = None,
        proxy: str | None = None,
        connect_timeout_s: float | None = None,
        read_timeout_s: float | None = None,
        deadline_s: float = DEFAULT_DEADLINE_S,
        patience: Patience | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._attester = attester
        self._key_id = key_id
        connect_s, read_s = _timeouts(deadline_s, connect_timeout_s, read_timeout_s)
        settings = AwsSettings(
            endpoint_url=endpoint_url,
            region=region,
            access_key_id=access_key_id,
            secret_access_key=secret_access_key,
            session_token=session_token,
            sts_endpoint=sts_endpoint,
            instance_metadata=instance_metadata,
            role_arn=role_arn,
            ca_bundle=ca_bundle,
            proxy=proxy,
            connect_timeout_s=connect_s,
            read_timeout_s=read_s,
        )
        self._client = make_client(settings)
        self._patience = patience or Patience(
            deadline_s=deadline_s, attempt_s=connect_s + read_s, monotonic=monotonic, sleep=sleep
        )

    def generate_data_key(self, context: Mapping[str, str]) -> DataKey:
        """Return a fresh 32-byte key and its wrapped form.

        :param context: KMS encryption context; public, at most 8 KB.
        :raises KeyReleaseError: ``KMS_DENIED``, ``KMS_REFUSED_REQUEST``, ``KMS_KEY_UNUSABLE``,
            ``KMS_CREDENTIALS``, ``KMS_TLS_FAILED``, ``KMS_THROTTLED`` or ``KMS_UNAVAILABLE`` (retriable),
            ``KMS_RETURNED_PLAINTEXT``, ``KMS_BAD_ANSWER`` or a code of :func:`.cms.open_enveloped`.
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
        :raises KeyReleaseError: as :meth:`generate_data_key`; ``KMS_WRONG_BLOB`` or ``KMS_WRONG_KEY``.
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
        return self._patience(lambda: self._attempt(call))

    def _attempt(self, call: Callable[[dict[str, object]], Any]) -> tuple[dict[str, Any], bytes]:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        recipient: dict[str, object] = {
            "KeyEncryptionAlgorithm": _KEY_ALGORITHM,
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


def aws_patience(
    deadline_s: float, *, connect_timeout_s: float | None = None, read_timeout_s: float | None = None
) -> Patience:
    """Return patience for one endpoint, to be shared by every :class:`AwsKms` that asks it.

    :param deadline_s: :param connect_timeout_s: :param read_timeout_s: as given to :class:`AwsKms`.
    :raises ConfigurationError: ``EXTRA_MISSING``.
    """
    return Patience(
        deadline_s=deadline_s, attempt_s=sum(_timeouts(deadline_s, connect_timeout_s, read_timeout_s))
    )


def _timeouts(deadline_s: float, connect_s: float | None, read_s: float | None) -> tuple[float, float]:
    share = max(deadline_s / 6, 0.05)
    return share if connect_s is None else connect_s, share if read_s is None else read_s


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
        ``KMS_CREDENTIALS``, ``KMS_TLS_FAILED``, ``KMS_THROTTLED`` or ``KMS_UNAVAILABLE`` (retriable) or
        ``KMS_BAD_ANSWER``.
    :raises ConfigurationError: as :class:`AwsKms`.
    """
    settings = AwsSettings(
        endpoint_url=endpoint_url,
        region=region,
        access_key_id=access_key_id,
        secret_access_key=secret_access_key,
        session_token=session_token,
        connect_timeout_s=timeout_s,
        read_timeout_s=timeout_s,
    )
    # No attestation document here that would have to be fresh: botocore may ask again.
    client = make_client(settings, attempts=3)
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
