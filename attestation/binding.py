"""Binds evidence to a worker's receipt key and announcement (AIR v1, key binding)."""

from __future__ import annotations

from hmac import compare_digest

from ..wire.errors import VerificationError
from .evidence import VerifiedEvidence


def check_binding(verified: VerifiedEvidence, receipt_key: bytes, announcement_digest: bytes | None) -> None:
    """Check that the attested TEE vouched for this key, and for this announcement.

    Nitro format: ``public_key`` is the raw Ed25519 key, ``user_data`` the announcement body's SHA-256.

    :param receipt_key: raw Ed25519 public key, 32 bytes.
    :param announcement_digest: 32 bytes; None where there is no announcement to hold it to.
    :raises VerificationError: ``KEY_BINDING_FAILED`` or ``ANNOUNCEMENT_BINDING_FAILED``.
    """
    if len(receipt_key) != 32 or not compare_digest(verified.public_key or b"", receipt_key):
        raise VerificationError("KEY_BINDING_FAILED", "the evidence does not vouch for this receipt key")
    if announcement_digest is None:
        return
    if len(announcement_digest) != 32 or not compare_digest(verified.user_data or b"", announcement_digest):
        raise VerificationError(
            "ANNOUNCEMENT_BINDING_FAILED", "the evidence does not vouch for this announcement"
        )
