"""What the errors of AWS KMS mean here: a stable code, whether asking again may help, what to do.

Names are those of the AWS KMS API Reference ("Decrypt", "GenerateDataKey", "Common error
types"); the texts that come with them are dropped, they may repeat the request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ...wire.errors import KeyReleaseError

_CREDENTIALS: Final = (
    "KMS_CREDENTIALS",
    "the KMS does not accept these credentials: renew them, and check this machine's clock",
    False,
)
_THROTTLED: Final = ("KMS_THROTTLED", "the KMS is asked too often: ask for a higher request quota", True)
_FAILING: Final = ("KMS_UNAVAILABLE", "the KMS is failing: see the provider's status page", True)
_INVALID: Final = (
    "KMS_REFUSED_REQUEST",
    "the KMS refused the request or the attestation document: is the document fresh and the clock right?",
    False,
)

_MEANINGS: Final[Mapping[str, tuple[str, str, bool]]] = {
    "AccessDeniedException": (
        "KMS_DENIED",
        "the KMS's key policy does not release the key to this caller: compare its measurements",
        False,
    ),
    "ValidationException": _INVALID,
    "InvalidCiphertextException": (
        "KMS_WRONG_BLOB",
        "the wrapped key is damaged or was wrapped under another encryption context",
        False,
    ),
    "IncorrectKeyException": (
        "KMS_WRONG_KEY",
        "the wrapped key was wrapped with another KMS key: check the key id",
        False,
    ),
    "InvalidKeyUsageException": ("KMS_KEY_UNUSABLE", "the KMS key is not one for encryption", False),
    "InvalidGrantTokenException": _INVALID,
    "DryRunOperationException": _INVALID,
    "DisabledException": ("KMS_KEY_UNUSABLE", "the KMS key is disabled: enable it", False),
    "KMSInvalidStateException": (
        "KMS_KEY_UNUSABLE",
        "the KMS key is in no state to be used: is it being deleted?",
        False,
    ),
    "NotFoundException": ("KMS_KEY_UNUSABLE", "there is no such KMS key: check key id and region", False),
    "KeyUnavailableException": ("KMS_UNAVAILABLE", "the KMS key cannot be reached for the moment", True),
    "DependencyTimeoutException": _FAILING,
    "KMSInternalException": _FAILING,
    "InternalFailure": _FAILING,
    "ServiceUnavailable": _FAILING,
    "ServiceUnavailableException": _FAILING,
    **dict.fromkeys(
        (
            "ThrottlingException",
            "Throttling",
            "TooManyRequestsException",
            "RequestLimitExceeded",
            "LimitExceededException",
        ),
        _THROTTLED,
    ),
    **dict.fromkeys(
        (
            "UnrecognizedClientException",
            "InvalidClientTokenId",
            "InvalidSignatureException",
            "SignatureDoesNotMatch",
            "IncompleteSignature",
            "IncompleteSignatureException",
            "MissingAuthenticationToken",
            "MissingAuthenticationTokenException",
            "ExpiredTokenException",
            "ExpiredToken",
            "RequestExpired",
            "OptInRequired",
        ),
        _CREDENTIALS,
    ),
}


def refusal(response: Mapping[str, Any]) -> KeyReleaseError:
    """Return our error for an error answer of the KMS, as botocore parses it.

    A name that is not known goes by its HTTP status: 429 and 5xx may be asked again, others may not.
    """
    name = str(response.get("Error", {}).get("Code", ""))
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    code, message, retriable = _MEANINGS.get(name) or _by_status(status)
    return KeyReleaseError(code, message, retriable=retriable)


def _by_status(status: int) -> tuple[str, str, bool]:
    if status == 429:
        return _THROTTLED
    return _FAILING if status >= 500 else _INVALID
