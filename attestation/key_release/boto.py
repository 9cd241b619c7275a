"""boto3 behind one door: how a KMS client is made, and what its errors mean here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from ...wire.errors import ConfigurationError, KeyReleaseError

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient

_KEY_UNUSABLE: Final = frozenset({"DisabledException", "KMSInvalidStateException", "NotFoundException"})
_UNAVAILABLE: Final = frozenset(
    {
        "ThrottlingException",
        "Throttling",
        "TooManyRequestsException",
        "RequestLimitExceeded",
        "KMSInternalException",
        "DependencyTimeoutException",
        "KeyUnavailableException",
    }
)
_CREDENTIALS: Final = frozenset(
    {
        "UnrecognizedClientException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "SignatureDoesNotMatch",
        "IncompleteSignature",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "ExpiredTokenException",
    }
)


def make_client(
    *,
    endpoint_url: str | None,
    region: str | None,
    access_key_id: str | None,
    secret_access_key: str | None,
    session_token: str | None,
    timeout_s: float,
    attempts: int = 1,
) -> KMSClient:
    """Return a boto3 KMS client; where credentials or region are None, boto3 finds them its usual way.

    :param timeout_s: to connect, and again to answer, in seconds.
    :raises ConfigurationError: ``EXTRA_MISSING``, ``KMS_CREDENTIALS_INCOMPLETE`` or ``BAD_KMS_SETTINGS``.
    """
    if (access_key_id is None) != (secret_access_key is None):
        raise ConfigurationError("KMS_CREDENTIALS_INCOMPLETE", "access key id and secret come together")
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError:
        raise ConfigurationError(
            "EXTRA_MISSING", "AWS KMS needs boto3: pip install 'ephemeralml[aws]'"
        ) from None
    config = Config(
        connect_timeout=timeout_s,
        read_timeout=timeout_s,
        retries={"mode": "standard", "total_max_attempts": attempts},
    )
    try:
        session = boto3.session.Session(
            aws_access_key_id=access_key_id,
            aws_secret_access_key=secret_access_key,
            aws_session_token=session_token,
            region_name=region,
        )
        return session.client("kms", endpoint_url=endpoint_url, config=config)
    except (BotoCoreError, ValueError):
        raise ConfigurationError(
            "BAD_KMS_SETTINGS", "the KMS's region, endpoint or profile is wrong"
        ) from None


def kms_answer(call: Callable[[], Any]) -> dict[str, Any]:
    """Return what a boto3 KMS call returns; its errors become ours.

    :raises KeyReleaseError: ``KMS_DENIED``, ``KMS_REFUSED_REQUEST``, ``KMS_KEY_UNUSABLE`` or
        ``KMS_UNAVAILABLE`` (retriable).
    :raises ConfigurationError: ``KMS_NO_CREDENTIALS``.
    """
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        NoCredentialsError,
        ParamValidationError,
        PartialCredentialsError,
    )

    try:
        return dict(call())
    except ClientError as error:
        failure = _refusal(error.response)
    except (NoCredentialsError, PartialCredentialsError):
        raise ConfigurationError("KMS_NO_CREDENTIALS", "no AWS credentials were found") from None
    except ParamValidationError:
        failure = KeyReleaseError("KMS_REFUSED_REQUEST", "the request does not follow the KMS's model")
    except BotoCoreError:
        failure = KeyReleaseError("KMS_UNAVAILABLE", "the KMS cannot be reached", retriable=True)
    raise failure from None


def _refusal(response: Mapping[str, Any]) -> KeyReleaseError:
    """Return our error for an answer of the KMS; its text is dropped, it may repeat the request."""
    code = str(response.get("Error", {}).get("Code", ""))
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code == "AccessDeniedException":
        return KeyReleaseError("KMS_DENIED", "the KMS's key policy does not release the key to this caller")
    if code in _CREDENTIALS:
        return KeyReleaseError("KMS_DENIED", "the KMS does not accept these credentials")
    if code in _KEY_UNUSABLE:
        return KeyReleaseError("KMS_KEY_UNUSABLE", "the KMS key is missing, disabled or being deleted")
    if code in _UNAVAILABLE or status == 429 or status >= 500:
        return KeyReleaseError("KMS_UNAVAILABLE", "the KMS is busy or failing", retriable=True)
    return KeyReleaseError("KMS_REFUSED_REQUEST", "the KMS refused the request or the attestation document")
