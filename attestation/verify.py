"""One door to the platforms' verifiers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ..wire.bundle import Collateral
from ..wire.errors import EndorsementsError
from .confidential_space import parse as confidential_space_format
from .confidential_space import verify as confidential_space
from .confidential_space.endorsements import ConfidentialSpaceEndorsements
from .evidence import VerifiedEvidence
from .nitro import verify as nitro
from .nitro.endorsements import NitroEndorsements
from .nitro.parse import parse
from .nvidia import parse as nvidia_format
from .nvidia import verify as nvidia
from .nvidia.endorsements import NvidiaEndorsements
from .policy import TrustPolicy
from .simulated import verify as simulated
from .simulated.endorsements import SimulatedEndorsements
from .tdx import parse as tdx_format
from .tdx import verify as tdx
from .tdx.endorsements import TdxEndorsements


@dataclass(frozen=True, slots=True)
class Endorsements:
    """Trust anchors and collateral by platform; the defaults are the vendors' pinned roots, no collateral.

    :param simulated: development roots; none by default.
    """

    nitro: NitroEndorsements = field(default_factory=NitroEndorsements)
    simulated: SimulatedEndorsements = field(default_factory=SimulatedEndorsements)
    confidential_space: ConfidentialSpaceEndorsements = field(default_factory=ConfidentialSpaceEndorsements)
    nvidia: NvidiaEndorsements = field(default_factory=NvidiaEndorsements)
    tdx: TdxEndorsements = field(default_factory=TdxEndorsements)


def endorsements_for(policy: TrustPolicy) -> Endorsements:
    """Return the vendors' pinned roots, and the development root that a policy names, if any."""
    allowed = policy.platforms.simulated
    roots = () if allowed is None else (bytes.fromhex(allowed.root_fingerprint),)
    return Endorsements(simulated=SimulatedEndorsements(roots))


def with_collateral(endorsements: Endorsements, files: Sequence[Collateral]) -> Endorsements:
    """Return endorsements completed by files from elsewhere; roots and what is there already stay.

    Collateral is signed by its vendor and is checked where it is used: who carried it does not matter.

    :raises MalformedError: a file is not what its name says.
    """
    by_platform: dict[str, dict[str, bytes]] = {}
    for file in files:
        by_platform.setdefault(file.platform, {})[file.name] = file.data
    # Nothing for confidential-space: its JWKS is signed by nobody, and is only taken from Google's address
    # or the verifier's own files. PKI tokens need none.
    return replace(
        endorsements,
        tdx=endorsements.tdx.with_files(by_platform.get("tdx", {})),
        nvidia=endorsements.nvidia.with_files(by_platform.get("nvidia", {})),
    )


def stated_time(platform: str, data: bytes) -> int | None:
    """Return the time (Unix seconds) that evidence gives for itself: a claim until it is verified at it.

    A signing certificate lives for hours, what it vouched for may be judged years later: archived
    evidence is verified at its own time, and its age is then a matter of policy. None where the
    format has no time.

    :raises MalformedError: it is no evidence of this platform.
    :raises EndorsementsError: ``UNKNOWN_PLATFORM``.
    """
    match platform:
        case "nitro" | "simulated":
            return parse(data).timestamp_ms // 1000
        case "confidential-space":
            return confidential_space_format.parse(data).issued_at
        case "nvidia":
            return nvidia_format.stated_time(data)
        case "tdx":
            tdx_format.parse(data)
            return None
        case _:
            raise _unknown_platform()


def verify_evidence(platform: str, data: bytes, endorsements: Endorsements, now: int) -> VerifiedEvidence:
    """Verify evidence of a named platform; the name is the sender's claim and only picks the verifier.

    :param now: Unix seconds.
    :raises MalformedError: :raises VerificationError: as the platform's verifier.
    :raises EndorsementsError: ``UNKNOWN_PLATFORM``, ``NO_ROOTS``, or collateral that is missing or expired.
    """
    match platform:
        case "nitro":
            return nitro.verify(data, endorsements.nitro, now)
        case "simulated":
            return simulated.verify(data, endorsements.simulated, now)
        case "confidential-space":
            return confidential_space.verify(data, endorsements.confidential_space, now)
        case "nvidia":
            return nvidia.verify(data, endorsements.nvidia, now)
        case "tdx":
            return tdx.verify(data, endorsements.tdx, now)
        case _:
            raise _unknown_platform()


def _unknown_platform() -> EndorsementsError:
    return EndorsementsError("UNKNOWN_PLATFORM", "no verifier for this platform")
