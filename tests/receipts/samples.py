"""Claims, keys and evidence that the tests of receipts share."""

from __future__ import annotations

from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ephemeralml.attestation.appraise import Appraisal
from ephemeralml.attestation.evidence import VERIFIER_TOKEN, Measurements, VerifiedEvidence
from ephemeralml.attestation.nitro import NitroDetails
from ephemeralml.receipts.claims import Claims
from ephemeralml.receipts.outcome import Outcome
from ephemeralml.receipts.policy import ReceiptPolicy

NOW = 1_740_500_060
KEY = Ed25519PrivateKey.from_private_bytes(b"\x2a" * 32)
PUBLIC = KEY.public_key().public_bytes_raw()
OTHER_PUBLIC = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32).public_key().public_bytes_raw()
SLOTS = {f"pcr{index}": bytes([index + 1]) * 48 for index in (0, 1, 2)}
CLAIMS = Claims(
    iss="worker.example",
    iat=1_740_500_000,
    cti=bytes(range(16)),
    eat_nonce=b"nonce of the client",
    model_id="minilm-l6-v2",
    model_version="1.0.0",
    model_hash=b"\xaa" * 32,
    request_hash=b"\xbb" * 32,
    response_hash=b"\xcc" * 32,
    attestation_doc_hash=b"\xdd" * 32,
    enclave_measurements=Measurements("nitro-pcr", SLOTS),
    policy_version="policy-1",
    sequence_number=0,
    execution_time_ms=7,
    memory_peak_mb=256,
    security_mode="production",
    model_hash_scheme="sha256-manifest",
)
POLICY = ReceiptPolicy(
    max_age_s=3600,
    expected_nonce=CLAIMS.eat_nonce,
    expected_model_hash=CLAIMS.model_hash,
    expected_model_id=CLAIMS.model_id,
    expected_request_hash=CLAIMS.request_hash,
    expected_response_hash=CLAIMS.response_hash,
    expected_attestation_doc_hash=CLAIMS.attestation_doc_hash,
    expected_platform="nitro-pcr",
)
EVALUATION = replace(CLAIMS, security_mode="evaluation")
OUTCOME = Outcome(
    job_id=b"\x01" * 16,
    pool="minilm",
    status="succeeded",
    code="",
    iat=1_740_500_000,
    receipt_hash=b"\x02" * 32,
    batch_id=b"\x03" * 16,
    index=49_999,
    attestation_doc_hash=b"\xdd" * 32,
    job_hash=b"\x04" * 32,
)


def evidence(
    *,
    evidence_hash: bytes = CLAIMS.attestation_doc_hash,
    measurements: Measurements = CLAIMS.enclave_measurements,
    public_key: bytes | None = PUBLIC,
    debug: bool = False,
    simulated: bool = False,
) -> VerifiedEvidence:
    """Evidence as a platform verifier would hand it out."""
    return VerifiedEvidence(
        platform="simulated" if simulated else "nitro",
        evidence_hash=evidence_hash,
        measurements=measurements,
        issued_at=1_740_490_000,
        not_before=1_740_480_000,
        not_after=1_740_510_000,
        root_fingerprint=bytes(32),
        debug=debug,
        simulated=simulated,
        details=NitroDetails({}, public_key, None, None, "i-1"),
        token=VERIFIER_TOKEN,
    )


def appraisal(evidence_hash: bytes = CLAIMS.attestation_doc_hash) -> Appraisal:
    """An appraisal of such evidence."""
    return Appraisal(evidence_hash, "release-1", "production")
