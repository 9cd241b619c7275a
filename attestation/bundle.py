"""A whole evidence bundle, judged: the CPU's evidence, its companions, and what ties them together.

A GPU's report says nothing about the machine that it sits in; a launcher's token
says nothing about the key that signs receipts. Each companion is therefore tied to
the CPU's evidence by what that companion's TEE part signed:

* ``nvidia``: its nonce is the SHA-256 of the CPU's evidence;
* ``confidential-space``: its nonces are the digests of the receipt key and of the announcement.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..wire.bundle import EvidenceBundle
from ..wire.errors import AppraisalError, VerificationError
from .appraise import Appraisal, appraise
from .binding import check_binding
from .evidence import Finding, VerifiedEvidence
from .policy import TrustPolicy
from .verify import Endorsements, stated_time, verify_evidence, with_collateral

MAX_COMPANION_OFFSET_S: Final = 600


@dataclass(frozen=True, slots=True)
class VerifiedBundle:
    """Evidence and companions, all genuine and all of one TEE.

    :param cpu: the CPU's evidence, the one that receipts name.
    """

    cpu: VerifiedEvidence
    companions: tuple[VerifiedEvidence, ...] = ()


def verify_bundle(
    bundle: EvidenceBundle, endorsements: Endorsements, at: int, receipt_key: bytes, digest: bytes
) -> VerifiedBundle:
    """Verify a bundle at a time and bind all of it to a receipt key and to what the key signed for.

    1. the CPU's evidence is genuine, with the verifier's own roots and, where it has none, the
       collateral that travels along;
    2. it vouches for the receipt key and for the digest;
    3. every companion is genuine, and is tied to the same TEE.

    :param at: Unix seconds. Evidence that states a time is verified at its own: a signing certificate
        lives hours, what it vouched for is judged later, and a launcher makes its token a little after
        it was asked. A companion's time must be near ``at``; the CPU's is for the caller to hold.
    :param receipt_key: raw Ed25519 key, 32 bytes. :param digest: SHA-256 of the announcement's body (or
        birth certificate's payload), 32 bytes.
    :raises MalformedError: :raises VerificationError: as the platforms' verifiers and
        :func:`~.binding.check_binding`, or ``COMPANION_NOT_ALLOWED``,
        ``COMPANION_TIME`` or ``COMPANION_BINDING_FAILED``.
    :raises EndorsementsError: something needed to judge is missing.
    """
    complete = with_collateral(endorsements, bundle.collateral)
    own = _time_of(bundle.platform, bundle.evidence, at)
    cpu = verify_evidence(bundle.platform, bundle.evidence, complete, own)  # 1
    check_binding(cpu, receipt_key, digest)  # 2
    companions = []
    for platform, data in bundle.companions:  # 3
        made_at = _time_of(platform, data, at)
        if abs(made_at - at) > MAX_COMPANION_OFFSET_S:
            raise VerificationError("COMPANION_TIME", "a companion is of another time")
        companion = verify_evidence(platform, data, complete, made_at)
        _check_tied(companion, cpu, receipt_key, digest)
        companions.append(companion)
    return VerifiedBundle(cpu, tuple(companions))


def _time_of(platform: str, data: bytes, at: int) -> int:
    stated = stated_time(platform, data)
    return at if stated is None else stated


def _check_tied(
    companion: VerifiedEvidence, cpu: VerifiedEvidence, receipt_key: bytes, digest: bytes
) -> None:
    match companion.platform:
        case "nvidia":
            tied = companion.details.binds_nonce(cpu.evidence_hash)
        case "confidential-space":
            tied = companion.details.binds_key(receipt_key) and companion.details.binds_announcement(digest)
        case _:
            raise VerificationError(
                "COMPANION_NOT_ALLOWED", "evidence of this platform cannot be a companion"
            )
    if not tied:
        raise VerificationError("COMPANION_BINDING_FAILED", "a companion is not of this TEE")


def appraise_bundle(
    verified: VerifiedBundle, policy: TrustPolicy, now: int, *, stated_at: int | None = None
) -> Appraisal:
    """Hold a bundle against a policy: its CPU, the companions that the policy names, and those it requires.

    A companion of a platform that the policy does not name is left aside, as the finding
    ``COMPANION_NOT_APPRAISED``: nothing is concluded from it.

    :param now: Unix seconds. :param stated_at: as for :func:`~.appraise.appraise`.
    :raises AppraisalError: as :func:`~.appraise.appraise` for any part, or ``COMPANION_MISSING``: one
        that is required is not there, or the policy does not say what it must be.
    """
    cpu = appraise(verified.cpu, policy, now, stated_at=stated_at)
    # What the policy does not name is not judged below: to be there is not enough.
    missing = policy.platforms.required_with(verified.cpu.platform) - {
        companion.platform for companion in verified.companions if policy.platforms.names(companion.platform)
    }
    if missing:
        detail = f"the policy requires evidence of {', '.join(sorted(missing))} too"
        raise AppraisalError("COMPANION_MISSING", detail, findings=(("COMPANION_MISSING", detail),))
    notes: list[Finding] = []
    mode = cpu.security_mode
    for companion in verified.companions:
        if not policy.platforms.names(companion.platform):
            notes.append(("COMPANION_NOT_APPRAISED", companion.platform))
            continue
        part = appraise(companion, policy, now, stated_at=stated_at)
        notes += [(code, f"{companion.platform}: {detail}") for code, detail in part.findings]
        mode = "evaluation" if part.security_mode == "evaluation" else mode
    return Appraisal(cpu.evidence_hash, cpu.measurement_set, mode, (*cpu.findings, *notes))
