"""An announcement, judged: are its claims those of a TEE that is genuine and wanted?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from ..wire.announcement import Announcement, AnnouncementBody
from ..wire.bundle import EvidenceBundle
from ..wire.errors import VerificationError
from .appraise import Appraisal
from .bundle import VerifiedBundle, appraise_bundle, verify_bundle
from .policy import TrustPolicy
from .verify import Endorsements

CLOCK_SKEW_S: Final = 300


@dataclass(frozen=True)
class Announced:
    """What a TEE said of itself, after verification and appraisal."""

    body: AnnouncementBody
    bundle: EvidenceBundle = field(repr=False)
    verified: VerifiedBundle
    appraisal: Appraisal


def judge_announcement(
    announcement: Announcement, endorsements: Endorsements, policy: TrustPolicy, now: int
) -> Announced:
    """Verify and appraise an announcement at its own time.

    1. it is not from the future;
    2. its evidence is genuine, vouches for its receipt key and its body, and so do all companions;
    3. evidence and announcement are of one time, where the evidence states one;
    4. the policy wants the TEE, at the announcement's time: whether that is recent enough to seal to
       is for the caller to say;
    5. the security mode that it claims is the one that the evidence shows.

    :param now: Unix seconds.
    :raises VerificationError: ``ANNOUNCEMENT_FUTURE``, ``ANNOUNCEMENT_TIME``, ``SECURITY_MODE_MISMATCH``, and
        those of :func:`~.bundle.verify_bundle`. :raises MalformedError: :raises EndorsementsError: likewise.
    :raises AppraisalError: as :func:`~.bundle.appraise_bundle`.
    """
    body, bundle = announcement.body, announcement.bundle
    issued_at = body.issued_at
    if issued_at > now + CLOCK_SKEW_S:  # 1
        raise VerificationError("ANNOUNCEMENT_FUTURE", "the announcement is from the future")
    verified = verify_bundle(bundle, endorsements, issued_at, body.receipt_key, announcement.digest)  # 2
    evident_at = verified.cpu.issued_at
    if evident_at is not None and abs(evident_at - issued_at) > CLOCK_SKEW_S:  # 3
        raise VerificationError("ANNOUNCEMENT_TIME", "evidence and announcement are of different times")
    appraisal = appraise_bundle(verified, policy, issued_at, stated_at=issued_at)  # 4
    if body.security_mode != appraisal.security_mode:  # 5
        raise VerificationError("SECURITY_MODE_MISMATCH", "the announcement claims another security mode")
    return Announced(body, bundle, verified, appraisal)
