"""Beyond AIR-local: does the key that signed a receipt live in a TEE that is genuine and wanted?

Without these checks a receipt says only that the holder of some key signed it.
"""

from __future__ import annotations

from typing import Final

from ..attestation.appraise import Appraisal
from ..attestation.binding import check_binding
from ..attestation.evidence import VerifiedEvidence
from ..wire.errors import VerificationError
from .checks import CHECKS, PROVENANCE, Check, failed, judged, passed, skipped
from .claims import Claims
from .rules import Fault

_NO_EVIDENCE: Final = tuple(
    skipped(PROVENANCE, name, "no verified evidence was given") for name in CHECKS[PROVENANCE]
)


def check_provenance(
    claims: Claims,
    public_key: bytes,
    evidence: VerifiedEvidence | None,
    appraisal: Appraisal | None,
) -> list[Check]:
    """Report every check of layer 5.

    :param public_key: the raw Ed25519 key that verified the receipt, 32 bytes.
    :param evidence: what a platform verifier made of the attestation document, or None.
    :param appraisal: what the trust policy said about that evidence, or None.
    """
    if evidence is None:
        return list(_NO_EVIDENCE)
    return [
        judged(PROVENANCE, "EVIDENCE", _is_verified(evidence)),
        judged(PROVENANCE, "EVIDENCE_HASH", _same_document(claims, evidence)),
        judged(PROVENANCE, "MEASUREMENTS", _same_measurements(claims, evidence)),
        _key_binding(evidence, public_key),
        _appraised(claims, evidence, appraisal),
    ]


def _is_verified(evidence: VerifiedEvidence) -> Fault:
    if isinstance(evidence, VerifiedEvidence):
        return None
    return ("EVIDENCE_NOT_VERIFIED", "not what a platform verifier returns")


def _same_document(claims: Claims, evidence: VerifiedEvidence) -> Fault:
    if claims.attestation_doc_hash == evidence.evidence_hash:
        return None
    return ("ATTESTATION_DOC_HASH_MISMATCH", "the receipt names another attestation document")


def _same_measurements(claims: Claims, evidence: VerifiedEvidence) -> Fault:
    """Every slot that the receipt states must be in the evidence with the same value."""
    stated, attested = claims.enclave_measurements, evidence.measurements
    if attested is None:
        return ("MEASUREMENTS_MISMATCH", "the evidence has no measurements that a receipt can state")
    if stated.kind == attested.kind and stated.values.items() <= attested.values.items():
        return None
    return ("MEASUREMENTS_MISMATCH", "the evidence does not have the measurements that the receipt states")


def _key_binding(evidence: VerifiedEvidence, public_key: bytes) -> Check:
    if (fault := _is_verified(evidence)) is not None:
        return judged(PROVENANCE, "KEY_BINDING", fault)
    try:
        check_binding(evidence, public_key, None)
    except VerificationError as error:
        return failed(PROVENANCE, "KEY_BINDING", error.code, error.message)
    return passed(PROVENANCE, "KEY_BINDING")


def _appraised(claims: Claims, evidence: VerifiedEvidence, appraisal: Appraisal | None) -> Check:
    if appraisal is None:
        return skipped(PROVENANCE, "APPRAISAL", "the evidence was held against no trust policy")
    return judged(PROVENANCE, "APPRAISAL", _fault_in_appraisal(claims, evidence, appraisal))


def _fault_in_appraisal(claims: Claims, evidence: VerifiedEvidence, appraisal: Appraisal) -> Fault:
    if not isinstance(appraisal, Appraisal) or appraisal.evidence_hash != evidence.evidence_hash:
        return ("NOT_APPRAISED", "the appraisal is not of this evidence")
    attested = "evaluation" if evidence.simulated or evidence.debug else appraisal.security_mode
    if claims.security_mode != attested:
        return ("SECURITY_MODE_MISMATCH", "receipt and evidence are of different security modes")
    return None
