"""Binds evidence to a worker's receipt key and announcement (AIR v1, key binding; spec/wire.md)."""

from __future__ import annotations

from ..wire.errors import VerificationError
from .evidence import VerifiedEvidence


def check_binding(verified: VerifiedEvidence, receipt_key: bytes, announcement_digest: bytes | None) -> None:
    """Check that the attested TEE vouched for this key, and for this announcement.

    :param receipt_key: raw Ed25519 public key, 32 bytes.
    :param announcement_digest: SHA-256 of the announcement's body, 32 bytes; None where there is none.
    :raises VerificationError: ``KEY_BINDING_FAILED`` or ``ANNOUNCEMENT_BINDING_FAILED``.
    """
    if len(receipt_key) != 32 or not verified.details.binds_key(receipt_key):
        raise VerificationError("KEY_BINDING_FAILED", "the evidence does not vouch for this receipt key")
    if announcement_digest is None:
        return
    if len(announcement_digest) != 32 or not verified.details.binds_announcement(announcement_digest):
        raise VerificationError(
            "ANNOUNCEMENT_BINDING_FAILED", "the evidence does not vouch for this announcement"
        )
