"""One door to the platforms' verifiers."""

from __future__ import annotations

from dataclasses import dataclass

from ..wire.errors import EndorsementsError
from .evidence import VerifiedEvidence
from .nitro import verify as nitro
from .nitro.parse import parse
from .nitro.verify import AWS_NITRO_ROOT_G1
from .policy import TrustPolicy
from .simulated import verify as simulated


@dataclass(frozen=True, slots=True)
class Endorsements:
    """Trust anchors by platform: SHA-256 fingerprints of root certificates, 32 bytes each.

    :param simulated_roots: development roots; none by default.
    """

    nitro_roots: tuple[bytes, ...] = (AWS_NITRO_ROOT_G1,)
    simulated_roots: tuple[bytes, ...] = ()


def endorsements_for(policy: TrustPolicy) -> Endorsements:
    """Return the vendors' pinned roots, and the development root that a policy names, if any."""
    allowed = policy.platforms.simulated
    return Endorsements(simulated_roots=() if allowed is None else (bytes.fromhex(allowed.root_fingerprint),))


def stated_time(platform: str, data: bytes) -> int:
    """Return the time (Unix seconds) that evidence gives for itself: a claim until it is verified at it.

    A signing certificate lives for hours, what it vouched for may be judged years later: archived
    evidence is verified at its own time, and its age is then a matter of policy.

    :raises MalformedError: it is no evidence of this platform.
    :raises EndorsementsError: ``UNKNOWN_PLATFORM``.
    """
    if platform not in ("nitro", "simulated"):
        raise EndorsementsError("UNKNOWN_PLATFORM", "no verifier for this platform")
    return parse(data).timestamp_ms // 1000


def verify_evidence(platform: str, data: bytes, endorsements: Endorsements, now: int) -> VerifiedEvidence:
    """Verify evidence of a named platform; the name is the sender's claim and only picks the verifier.

    :param now: Unix seconds.
    :raises MalformedError: :raises VerificationError: as the platform's verifier.
    :raises EndorsementsError: ``UNKNOWN_PLATFORM`` or ``NO_ROOTS``.
    :raises ConfigurationError: ``BAD_FINGERPRINT``.
    """
    match platform:
        case "nitro":
            return nitro.verify(data, nitro.NitroEndorsements(endorsements.nitro_roots), now)
        case "simulated":
            roots = simulated.SimulatedEndorsements(endorsements.simulated_roots)
            return simulated.verify(data, roots, now)
        case _:
            raise EndorsementsError("UNKNOWN_PLATFORM", "no verifier for this platform")
