"""A receipt and the evidence behind it, judged in one call.

    receipt + evidence + endorsements + trust policy + receipt policy  ->  assurance level

The evidence is verified at its own time (at the receipt's, where it states none) and
appraised at the receipt's: an archived pair gives the same verdict years later, and
evidence that was too old when the receipt was made stays too old.
"""

from __future__ import annotations

from ..attestation.bundle import VerifiedBundle, appraise_bundle
from ..attestation.policy import TrustPolicy
from ..attestation.verify import Endorsements, stated_time, verify_evidence
from .checks import Verification
from .policy import ReceiptPolicy
from .verify import assess


def judge_receipt(
    receipt: bytes,
    public_key: bytes,
    policy: ReceiptPolicy | None,
    now: int,
    *,
    platform: str,
    evidence: bytes,
    endorsements: Endorsements,
    trust: TrustPolicy,
) -> Verification:
    """Verify a receipt through all layers, platform appraisal included.

    :param public_key: raw Ed25519 key, 32 bytes, that the evidence must vouch for.
    :param policy: as for :func:`~.verify.assess`. :param now: Unix seconds.
    :param platform: names the evidence's verifier. :param trust: what evidence is wanted.
    :raises MalformedError: :raises VerificationError: the evidence is not genuine.
    :raises AppraisalError: it is genuine, but not wanted, or was too old when the receipt was made.
    :raises EndorsementsError: no verifier or root for it.
    """
    alone = assess(receipt, public_key, policy, now)
    at = now if alone.claims is None else alone.claims.iat
    stated = stated_time(platform, evidence)
    verified = verify_evidence(platform, evidence, endorsements, at if stated is None else stated)
    # A policy that wants a GPU's evidence too is not met by the CPU's alone: COMPANION_MISSING.
    appraisal = appraise_bundle(VerifiedBundle(verified), trust, at)
    return assess(receipt, public_key, policy, now, verified_evidence=verified, appraisal=appraisal)
