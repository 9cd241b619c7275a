"""Cloud KMS behind one door: Encrypt and Decrypt over gRPC, CRC32C both ways, its errors in our words.

Cloud KMS, "Verifying end-to-end data integrity": the client sends the CRC32C of what
it sends, the server says that it checked them (Encrypt) or refuses the request
(Decrypt), and the client checks the CRC32C of what comes back. A relay that changes
bytes by accident is found by that; one that means to is kept out by TLS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from ...wire.errors import KeyReleaseError
from .gcp_settings import KmsTarget
from .gcp_token import missing_extra

if TYPE_CHECKING:
    from google.cloud.kms_v1.services.key_management_service import KeyManagementServiceClient

MAX_ANSWER_BYTES: Final = 131_072
MAX_WRAPPED_BYTES: Final = 65_536

_FAILING: Final = ("KMS_UNAVAILABLE", "the KMS is failing or cannot be reached: is the way to it open?", True)
_INVALID: Final = (
    "KMS_REFUSED_REQUEST",
    "the KMS refused the request: check the key's name and purpose",
    False,
)
_WRONG_BLOB: Final = (
    "KMS_WRONG_BLOB",
    "the wrapped key is damaged, or was wrapped with another key or under another context",
    False,
)
_UNUSABLE: Final = (
    "KMS_KEY_UNUSABLE",
    "the KMS key is missing, disabled or being destroyed: check its name and its primary version",
    False,
)
# gRPC's status codes, as Cloud KMS uses them.
_MEANINGS: Final[Mapping[str, tuple[str, str, bool]]] = {
    "PERMISSION_DENIED": (
        "KMS_DENIED",
        "the key's IAM policy does not release it to this caller: compare the image's digest",
        False,
    ),
    "UNAUTHENTICATED": ("KMS_CREDENTIALS", "the KMS does not accept the access token", False),
    "NOT_FOUND": _UNUSABLE,
    "FAILED_PRECONDITION": _UNUSABLE,
    "RESOURCE_EXHAUSTED": (
        "KMS_THROTTLED",
        "the KMS is asked too often: ask for a higher request quota",
        True,
    ),
    **dict.fromkeys(
        ("ABORTED", "CANCELLED", "DEADLINE_EXCEEDED", "INTERNAL", "UNAVAILABLE", "UNKNOWN"), _FAILING
    ),
}


class CloudKms:
    """One symmetric key of Cloud KMS.

    :param target: where to connect. :param ca_pem: roots for TLS; None: gRPC's own.
    :param key_name: full resource name.
    :raises ConfigurationError: ``EXTRA_MISSING``.
    """

    def __init__(self, target: KmsTarget, key_name: str, ca_pem: bytes | None = None) -> None:
        try:
            import google_crc32c
            import grpc  # type: ignore[import-untyped]  # grpcio ships no types
            from google.cloud import kms_v1
            from google.cloud.kms_v1.services.key_management_service import transports
        except ImportError:
            raise missing_extra() from None
        self._key_name = key_name
        self._crc32c: Callable[[bytes], int] = google_crc32c.value
        self._types = kms_v1
        self._channel = _channel(grpc, target, ca_pem)
        transport = transports.KeyManagementServiceGrpcTransport(channel=self._channel)
        self._client: KeyManagementServiceClient = kms_v1.KeyManagementServiceClient(transport=transport)

    def encrypt(self, plaintext: bytes, aad: bytes, *, access_token: str, timeout_s: float) -> bytes:
        """Return the wrapped form of a key.

        :param aad: additional authenticated data. :param timeout_s: for the answer, in seconds.
        :raises KeyReleaseError: ``KMS_DENIED``, ``KMS_CREDENTIALS``, ``KMS_KEY_UNUSABLE``,
            ``KMS_REFUSED_REQUEST``, ``KMS_UNAVAILABLE``, ``KMS_THROTTLED`` or ``KMS_CORRUPTED`` (a checksum
            does not match; all three retriable), ``KMS_RETURNED_PLAINTEXT`` or ``KMS_BAD_ANSWER``.
        """
        request = self._types.EncryptRequest(
            name=self._key_name,
            plaintext=plaintext,
            additional_authenticated_data=aad,
            plaintext_crc32c=self._crc32c(plaintext),
            additional_authenticated_data_crc32c=self._crc32c(aad),
        )
        answer = self._ask(lambda how: self._client.encrypt(request=request, **how), access_token, timeout_s)
        if not (answer.verified_plaintext_crc32c and answer.verified_additional_authenticated_data_crc32c):
            raise _corrupted("the KMS did not check what it was sent")
        self._check_sum(answer.ciphertext, answer.ciphertext_crc32c)
        if not answer.name.startswith(f"{self._key_name}/cryptoKeyVersions/"):
            raise KeyReleaseError("KMS_BAD_ANSWER", "the KMS used another key")
        if not 0 < len(answer.ciphertext) <= MAX_WRAPPED_BYTES:
            raise KeyReleaseError("KMS_BAD_ANSWER", "the KMS's answer holds no wrapped key")
        if plaintext in answer.ciphertext:
            raise KeyReleaseError(
                "KMS_RETURNED_PLAINTEXT", "the KMS wrapped nothing; the key must not be used"
            )
        return bytes(answer.ciphertext)

    def decrypt(self, wrapped: bytes, aad: bytes, *, access_token: str, timeout_s: float) -> bytes:
        """Return what a wrapped key holds.

        :raises KeyReleaseError: as :meth:`encrypt`, or ``KMS_WRONG_BLOB``: also where ``aad`` is another.
        """
        request = self._types.DecryptRequest(
            name=self._key_name,
            ciphertext=wrapped,
            additional_authenticated_data=aad,
            ciphertext_crc32c=self._crc32c(wrapped),
            additional_authenticated_data_crc32c=self._crc32c(aad),
        )
        answer = self._ask(
            lambda how: self._client.decrypt(request=request, **how), access_token, timeout_s, _WRONG_BLOB
        )
        self._check_sum(answer.plaintext, answer.plaintext_crc32c)
        return bytes(answer.plaintext)

    def close(self) -> None:
        """Drop the connection."""
        self._channel.close()

    def _ask(
        self,
        call: Callable[[dict[str, Any]], Any],
        access_token: str,
        timeout_s: float,
        invalid: tuple[str, str, bool] = _INVALID,
    ) -> Any:
        # The library's own retries would send one launcher token's worth again and again: none here.
        how = {
            "metadata": [("authorization", f"Bearer {access_token}")],
            "timeout": timeout_s,
            "retry": None,
        }
        try:
            return call(how)
        except Exception as error:  # gRPC's and api_core's trees have several roots
            raise _refusal(error, invalid) from None

    def _check_sum(self, data: bytes, stated: int | None) -> None:
        if stated != self._crc32c(data):  # None where it is absent
            raise _corrupted("a checksum of the KMS's answer does not match")


def _channel(grpc: Any, target: KmsTarget, ca_pem: bytes | None) -> Any:
    options: list[tuple[str, str | int]] = [
        ("grpc.enable_http_proxy", 0),  # settings say where to connect, not the surroundings
        ("grpc.enable_retries", 0),
        ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
    ]
    if target.server_name is None:
        return grpc.insecure_channel(target.address, options)
    if target.address.startswith(("unix:", "vsock:")):
        options += [("grpc.ssl_target_name_override", target.server_name)]
        options += [("grpc.default_authority", target.server_name)]
    return grpc.secure_channel(target.address, grpc.ssl_channel_credentials(ca_pem), options)


def _refusal(error: Exception, invalid: tuple[str, str, bool]) -> KeyReleaseError:
    """Return our error for one of gRPC's; its text is dropped, it may repeat the request."""
    name = getattr(getattr(error, "grpc_status_code", None), "name", None)
    if name is None:
        return KeyReleaseError("KMS_BAD_ANSWER", "the KMS cannot be asked, or its answer cannot be read")
    code, message, retriable = invalid if name == "INVALID_ARGUMENT" else _MEANINGS.get(name, _INVALID)
    return KeyReleaseError(code, message, retriable=retriable)


def _corrupted(message: str) -> KeyReleaseError:
    return KeyReleaseError("KMS_CORRUPTED", message, retriable=True)
