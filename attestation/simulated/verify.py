"""Verifies documents of the simulated TEE: the Nitro verifier under development roots."""

from __future__ import annotations

from dataclasses import dataclass

from ...wire.errors import ConfigurationError
from ..evidence import VerifiedEvidence
from ..nitro.parse import NitroDocument
from ..nitro.verify import AWS_NITRO_ROOT_G1, check_fingerprints, verify_as


@dataclass(frozen=True, slots=True)
class SimulatedEndorsements:
    """Development roots; none by default.

    :param roots: SHA-256 fingerprints, 32 bytes each.
    :raises ConfigurationError: ``BAD_FINGERPRINT``; the vendor's root is no development root.
    """

    roots: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        check_fingerprints(self.roots)
        if AWS_NITRO_ROOT_G1 in self.roots:
            raise ConfigurationError("BAD_FINGERPRINT", "the AWS Nitro root is no development root")


def verify(
    document: bytes | NitroDocument, endorsements: SimulatedEndorsements, now: int
) -> VerifiedEvidence:
    """Verify a simulated document; the evidence says ``simulated=True``.

    :param now: Unix seconds.
    :raises Error: as :func:`ephemeralml.attestation.nitro.verify.verify`.
    """
    return verify_as("simulated", document, endorsements.roots, now)
