"""Verifies NVIDIA evidence: genuine, at a given time, under pinned roots. No clock, no network."""

from __future__ import annotations

from ..evidence import VerifiedEvidence
from .endorsements import NvidiaEndorsements
from .local import verify_devices
from .nras import verify_answer
from .parse import DeviceEvidence, parse


def verify(data: bytes, endorsements: NvidiaEndorsements, now: int) -> VerifiedEvidence:
    """Verify evidence of either kind; the steps are those of :mod:`.local` and :mod:`.nras`.

    What has no collateral at hand and was therefore not checked comes back as findings, and appraisal
    refuses it unless the policy says otherwise by name.

    :param data: in the form that travels (spec/nvidia.md). :param now: Unix seconds.
    :raises MalformedError: as :func:`.parse.parse`, ``BAD_CERTIFICATE``, ``BAD_DER``, ``BAD_RIM`` or
        ``BAD_OCSP``.
    :raises VerificationError: as :func:`~..nitro.chain.verify_chain`, ``NONCE_MISMATCH``, ``SIG_FAILED``,
        ``ARCHITECTURE_MISMATCH``, ``FWID_MISMATCH``, ``DEVICE_TWICE``, ``RIM_SIG_FAILED``,
        ``CERTIFICATE_REVOKED``, ``CERTIFICATE_ON_HOLD``, ``CERTIFICATE_UNKNOWN``, ``OCSP_SIG_FAILED``; for
        the service's answers ``BAD_ALG``, ``BAD_KEY``, ``WRONG_ISSUER``, ``TOKEN_EXPIRED``,
        ``TOKEN_NOT_YET_VALID``, ``SUBMODULE_MISMATCH``.
    :raises EndorsementsError: ``NO_ROOTS``, ``NO_COLLATERAL``, ``UNKNOWN_KEY_ID``, ``COLLATERAL_EXPIRED``,
        ``COLLATERAL_NOT_YET_VALID``, ``COLLATERAL_MISMATCH`` or ``RIM_UNSUPPORTED``.
    :raises ConfigurationError: ``EXTRA_MISSING``: a manifest is at hand, and what reads XML is not installed.
    """
    evidence = parse(data)
    if isinstance(evidence, DeviceEvidence):
        return verify_devices(data, evidence, endorsements, now)
    return verify_answer(data, evidence.answer, endorsements, now)
