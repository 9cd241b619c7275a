"""Verifies documents of the simulated TEE: the Nitro verifier under development roots."""

from __future__ import annotations

from ..evidence import VerifiedEvidence
from ..nitro.parse import NitroDocument
from ..nitro.verify import verify_as
from .endorsements import SimulatedEndorsements


def verify(
    document: bytes | NitroDocument, endorsements: SimulatedEndorsements, now: int
) -> VerifiedEvidence:
    """Verify a simulated document; the evidence says ``simulated=True``.

    :param now: Unix seconds.
    :raises Error: as :func:`ephemeralml.attestation.nitro.verify.verify`.
    """
    return verify_as("simulated", document, endorsements.roots, now)
