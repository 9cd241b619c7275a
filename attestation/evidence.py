"""What attestation is about: measurements, and evidence that a verifier found genuine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field
from typing import Final, Literal, Protocol

MeasurementKind = Literal["nitro-pcr", "tdx-mrtd-rtmr"]
Finding = tuple[str, str]
"""A stable code, and the detail in words."""

VERIFIER_TOKEN: Final = object()
"""Held by the platform verifiers of this package, so that nobody makes evidence "verified" by accident."""


@dataclass(frozen=True, slots=True)
class Measurements:
    """What a TEE measured of itself, in the slots that receipts and policies name.

    :param kind: ``"nitro-pcr"`` or ``"tdx-mrtd-rtmr"`` (AIR v1, ``measurement_type``).
    :param values: by slot, SHA-384, 48 bytes each. Nitro: ``pcr0`` to ``pcr4`` and ``pcr8``; TDX: ``pcr0``
        is MRTD, ``pcr1`` to ``pcr4`` are RTMR0 to RTMR3.
    """

    kind: MeasurementKind
    values: Mapping[str, bytes]


class Details(Protocol):
    """A platform's own facts, and what the TEE was given to vouch for."""

    def binds_key(self, receipt_key: bytes) -> bool:
        """Return whether it vouches for this raw Ed25519 key, 32 bytes."""
        ...

    def binds_announcement(self, digest: bytes) -> bool:
        """Return whether it vouches for the announcement body of this SHA-256, 32 bytes."""
        ...

    def binds_nonce(self, nonce: bytes) -> bool:
        """Return whether it was made for this challenge; False where the platform carries none."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedEvidence:
    """Evidence whose signature, chain and validity were checked; whether it is *wanted* is appraisal's.

    Only a platform verifier can make one.

    :param platform: ``"nitro"``, ``"tdx"``, ``"confidential-space"``, ``"nvidia"`` or ``"simulated"``.
    :param evidence_hash: SHA-256 of the evidence, 32 bytes (AIR v1, ``attestation_doc_hash``).
    :param measurements: None where the platform has none that AIR v1 can carry.
    :param issued_at: when it was made, Unix seconds; None where the format has no time (a TDX quote).
    :param not_before: :param not_after: when every certificate and endorsement used is valid, Unix seconds.
    :param root_fingerprint: SHA-256 of the trust anchor, 32 bytes.
    :param debug: made by a TEE whose memory its host may read.
    :param simulated: made by software under a development root; proves nothing about hardware.
    :param findings: what could not be checked, or is notable; never a refusal.
    """

    platform: str
    evidence_hash: bytes
    measurements: Measurements | None
    issued_at: int | None
    not_before: int
    not_after: int
    root_fingerprint: bytes
    debug: bool
    simulated: bool
    details: Details = field(repr=False)
    findings: tuple[Finding, ...] = ()
    token: InitVar[object]

    def __post_init__(self, token: object) -> None:
        if token is not VERIFIER_TOKEN:
            raise TypeError("VerifiedEvidence comes from a platform's verifier only")
