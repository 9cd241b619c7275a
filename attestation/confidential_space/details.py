"""What a verified Confidential Space token says, and what its nonces vouch for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hmac import compare_digest
from typing import Final, Literal

from ...wire.encoding import sha256
from ...wire.errors import MalformedError, VerificationError
from ..evidence import VerifiedEvidence

# Whoever sends a challenge chooses its bytes. The prefix keeps a challenge from passing as the
# digest of a key. With it 32 bytes make 70 characters; the launcher takes 10 to 74.
CHALLENGE_PREFIX: Final = "nonce:"
MAX_CHALLENGE_BYTES: Final = 32
DIGEST_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class ConfidentialSpaceDetails:
    """The token's own fields.

    :param token_type: ``"OIDC"`` (a key of the issuer's JWKS signed) or ``"PKI"`` (a chain to the root).
    :param image_digest: ``sha256:`` and 64 hexadecimal digits, of the container's manifest.
    :param debug_status: ``"disabled-since-boot"`` in production.
    :param support_attributes: None where the token says nothing of support.
    :param command: the container's whole argument vector.
    :param command_override: None where the image's own command runs.
    :param environment_override: variables set by whoever started the machine.
    :param gpu_cc_mode: ``"ON"``, ``"OFF"``, ``"DEVTOOLS"``; None without a GPU.
    """

    token_type: Literal["OIDC", "PKI"]
    issuer: str
    audience: str
    subject: str
    nonces: tuple[str, ...]
    debug_status: str
    secure_boot: bool
    hardware_model: str
    software_name: str
    software_version: str
    support_attributes: tuple[str, ...] | None
    service_accounts: tuple[str, ...]
    image_digest: str
    image_reference: str
    restart_policy: str | None
    command: tuple[str, ...] = field(repr=False)
    command_override: tuple[str, ...] | None = field(repr=False)
    environment: Mapping[str, str] = field(repr=False)
    environment_override: Mapping[str, str] = field(repr=False)
    project_id: str | None
    zone: str | None
    gpu_cc_mode: str | None

    @classmethod
    def of(cls, verified: VerifiedEvidence) -> ConfidentialSpaceDetails:
        """Return the details of a verified token.

        :raises VerificationError: ``WRONG_PLATFORM``: the evidence is of another format.
        """
        if not isinstance(verified.details, cls):
            raise VerificationError("WRONG_PLATFORM", "the evidence is no Confidential Space token")
        return verified.details

    def binds_key(self, receipt_key: bytes) -> bool:
        """Return whether a nonce is the digest of this raw key."""
        return self._has(sha256(receipt_key).hex())

    def binds_announcement(self, digest: bytes) -> bool:
        """Return whether a nonce is this digest."""
        return len(digest) == DIGEST_BYTES and self._has(digest.hex())

    def binds_nonce(self, nonce: bytes) -> bool:
        """Return whether a nonce is this challenge."""
        return self._has(CHALLENGE_PREFIX + nonce.hex())

    def _has(self, wanted: str) -> bool:
        expected = wanted.encode()
        return any(compare_digest(nonce.encode(), expected) for nonce in self.nonces)


def nonces_for(
    *, public_key: bytes | None = None, user_data: bytes | None = None, nonce: bytes | None = None
) -> tuple[str, ...]:
    """Return the nonces to ask the launcher for: what :class:`ConfidentialSpaceDetails` then binds.

    :param public_key: any; its SHA-256 is vouched for. :param user_data: a SHA-256 digest, 32 bytes.
    :param nonce: a challenge, 4 to 32 bytes.
    :raises MalformedError: ``OUT_OF_BOUNDS``.
    """
    if user_data is not None and len(user_data) != DIGEST_BYTES:
        raise MalformedError("OUT_OF_BOUNDS", f"a token vouches for digests of {DIGEST_BYTES} bytes")
    if nonce is not None and not 4 <= len(nonce) <= MAX_CHALLENGE_BYTES:
        raise MalformedError("OUT_OF_BOUNDS", f"a challenge has 4 to {MAX_CHALLENGE_BYTES} bytes here")
    nonces = []
    if public_key is not None:
        nonces.append(sha256(public_key).hex())
    if user_data is not None:
        nonces.append(user_data.hex())
    if nonce is not None:
        nonces.append(CHALLENGE_PREFIX + nonce.hex())
    return tuple(nonces)
