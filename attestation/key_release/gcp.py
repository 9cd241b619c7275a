"""Key release by Google Cloud KMS, for workloads in Confidential Space.

Every attempt asks the launcher for a fresh token with a fresh nonce, exchanges it at
STS (whose attribute condition names the image), and asks Cloud KMS as what STS made
of it. Cloud KMS makes no data keys: 32 random bytes are drawn here, inside the TEE,
and wrapped with Encrypt; so nobody but this TEE and the KMS has seen them.

An access token is a bearer's: unlike AWS KMS, Cloud KMS does not encrypt its answer
to a key of this TEE. What keeps the answer secret is TLS, which ends in the TEE
(spec/key-release-gcp.md).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from ...wire.encoding import encode
from ...wire.errors import ConfigurationError, KeyReleaseError
from ..attest.launcher import SOCKET, Launcher
from .gcp_kms import MAX_WRAPPED_BYTES, CloudKms
from .gcp_settings import (
    IAM_ENDPOINT,
    KMS_ENDPOINT,
    STS_URL,
    GcpSettings,
    check_key_name,
    kms_target,
)
from .gcp_token import TokenSource, access_token
from .protocol import DataKey
from .retry import DEFAULT_DEADLINE_S, Patience

T = TypeVar("T")

DATA_KEY_BYTES: Final = 32
CONTEXT_LABEL: Final = "ephemeralml-kms-context-v1"
MAX_CONTEXT_BYTES: Final = 4_096  # Cloud KMS takes 64 KiB, its HSMs 8 KiB with the plaintext


class GcpKms:
    """Asks Cloud KMS for keys as an attested workload; a :class:`~.protocol.KeyRelease`.

    :param settings: names and addresses. :param source: gives launcher tokens.
    :param deadline_s: how long one call may take in all, in seconds, attempts included.
    :param patience: shared by all that ask one KMS, so that they share its circuit breaker; it then has the
        deadline. By default this object has its own.
    :param random: draws data keys and nonces, e.g. from the TEE's own source.
    :param monotonic: :param sleep: clock and pause, in seconds.
    :raises ConfigurationError: ``EXTRA_MISSING``.
    """

    def __init__(
        self,
        settings: GcpSettings,
        source: TokenSource,
        *,
        deadline_s: float = DEFAULT_DEADLINE_S,
        patience: Patience | None = None,
        random: Callable[[int], bytes] = secrets.token_bytes,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._settings = settings
        self._source = source
        self._random = random
        self._request_s = _attempt_s(deadline_s) / 3  # launcher, STS (and IAM), KMS
        self._patience = patience or Patience(
            deadline_s=deadline_s, attempt_s=_attempt_s(deadline_s), monotonic=monotonic, sleep=sleep
        )
        self._kms = CloudKms(kms_target(settings.kms_endpoint), settings.key_name, settings.ca_pem)

    def generate_data_key(self, context: Mapping[str, str]) -> DataKey:
        """Return a fresh 32-byte key and its wrapped form.

        :param context: public, at most 4 KiB encoded.
        :raises KeyReleaseError: ``KMS_DENIED``, ``KMS_CREDENTIALS``, ``KMS_REFUSED_REQUEST``,
            ``KMS_KEY_UNUSABLE``, ``KMS_UNAVAILABLE``, ``KMS_THROTTLED`` or ``KMS_CORRUPTED`` (all three
            retriable), ``KMS_RETURNED_PLAINTEXT``, ``KMS_BAD_TOKEN`` or ``KMS_BAD_ANSWER``.
        :raises ConfigurationError: the launcher's (``NO_LAUNCHER``, ``LAUNCHER_REFUSED``) or ``BAD_URL``.
        """
        aad = context_bytes(context)
        plaintext = self._random(DATA_KEY_BYTES)
        wrapped = self._patience(
            lambda: self._kms.encrypt(
                plaintext, aad, access_token=self._access_token(), timeout_s=self._request_s
            )
        )
        return DataKey(plaintext, wrapped)

    def decrypt(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        """Return the 32-byte key that ``wrapped`` holds.

        :param wrapped: what :meth:`generate_data_key` returned, at most 64 KiB.
        :raises KeyReleaseError: as :meth:`generate_data_key`, or ``KMS_WRONG_BLOB``: also where the context
            is another.
        """
        if not 0 < len(wrapped) <= MAX_WRAPPED_BYTES:
            raise KeyReleaseError("KMS_REFUSED_REQUEST", f"a wrapped key has 1 to {MAX_WRAPPED_BYTES} bytes")
        aad = context_bytes(context)
        plaintext = self._patience(
            lambda: self._kms.decrypt(
                wrapped, aad, access_token=self._access_token(), timeout_s=self._request_s
            )
        )
        if len(plaintext) != DATA_KEY_BYTES:
            raise KeyReleaseError("KMS_BAD_ANSWER", "the KMS's answer holds no key of 32 bytes")
        return plaintext

    def close(self) -> None:
        """Drop the connection."""
        self._kms.close()

    def _access_token(self) -> str:
        return access_token(self._settings, self._source, timeout_s=self._request_s, random=self._random)


def gcp_patience(deadline_s: float) -> Patience:
    """Return patience for one KMS, to be shared by every :class:`GcpKms` that asks it.

    :param deadline_s: as given to :class:`GcpKms`.
    :raises ConfigurationError: ``EXTRA_MISSING``.
    """
    return Patience(deadline_s=deadline_s, attempt_s=_attempt_s(deadline_s))


def _attempt_s(deadline_s: float) -> float:
    return max(deadline_s / 3, 0.1)


def make_gcp_release(
    *,
    key_name: str,
    provider: str,
    token_audience: str | None = None,
    service_account: str | None = None,
    launcher_socket: str = SOCKET,
    kms_endpoint: str = KMS_ENDPOINT,
    sts_url: str = STS_URL,
    iam_endpoint: str = IAM_ENDPOINT,
    ca_pem: bytes | None = None,
    evidence_audience: str | None = None,
    deadline_s: float = DEFAULT_DEADLINE_S,
    patience: Patience | None = None,
) -> GcpKms:
    """Return the key release of a worker in Confidential Space; see :class:`.gcp_settings.GcpSettings`.

    :param launcher_socket: of this machine's launcher.
    :param evidence_audience: of the tokens that this worker publishes as evidence, if it does.
    :param deadline_s: for one call in all, in seconds. :param patience: as for :class:`GcpKms`.
    :raises ConfigurationError: ``BAD_KMS_SETTINGS``, ``EXTRA_MISSING``, or ``AUDIENCE_REUSED``: what is
        published would be a credential for the KMS.
    """
    settings = GcpSettings(
        key_name=key_name,
        provider=provider,
        token_audience=token_audience,
        service_account=service_account,
        kms_endpoint=kms_endpoint,
        sts_url=sts_url,
        iam_endpoint=iam_endpoint,
        ca_pem=ca_pem,
    )
    if evidence_audience is not None and evidence_audience == settings.audience:
        raise ConfigurationError(
            "AUDIENCE_REUSED", "published evidence and tokens for the KMS must have different audiences"
        )
    launcher = Launcher(launcher_socket, deadline_s=_attempt_s(deadline_s) / 3)
    return GcpKms(settings, launcher, deadline_s=deadline_s, patience=patience)


def owner_data_key_gcp(
    key_name: str,
    context: Mapping[str, str],
    *,
    access_token: str,
    kms_endpoint: str = KMS_ENDPOINT,
    ca_pem: bytes | None = None,
    timeout_s: float = 10.0,
) -> DataKey:
    """Return a data key to its owner, outside any TEE (the model owner, who packages the model).

    :param access_token: the owner's own, e.g. of ``gcloud auth print-access-token``; the key's IAM policy
        lets owners encrypt, and never decrypt.
    :param timeout_s: for the answer, in seconds.
    :raises KeyReleaseError: as :meth:`GcpKms.generate_data_key`.
    :raises ConfigurationError: ``BAD_KMS_SETTINGS`` or ``EXTRA_MISSING``.
    """
    check_key_name(key_name)
    kms = CloudKms(kms_target(kms_endpoint), key_name, ca_pem)
    try:
        plaintext = secrets.token_bytes(DATA_KEY_BYTES)
        wrapped = kms.encrypt(
            plaintext, context_bytes(context), access_token=access_token, timeout_s=timeout_s
        )
    finally:
        kms.close()
    return DataKey(plaintext, wrapped)


def context_bytes(context: Mapping[str, str]) -> bytes:
    """Return a context as additional authenticated data: deterministic CBOR of ``[label, context]``.

    :raises KeyReleaseError: ``KMS_REFUSED_REQUEST``: it is longer than 4 KiB.
    """
    encoded = encode([CONTEXT_LABEL, dict(context)])
    if len(encoded) > MAX_CONTEXT_BYTES:
        raise KeyReleaseError(
            "KMS_REFUSED_REQUEST", f"a context has at most {MAX_CONTEXT_BYTES} bytes encoded"
        )
    return encoded
