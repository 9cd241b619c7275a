"""A receipt and a real document of the simulated TEE, from attestation to the assurance level."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from ephemeralml.attestation.appraise import appraise
from ephemeralml.attestation.policy import TrustPolicy, load_policy
from ephemeralml.attestation.simulated.attester import SimulatedAttester, development_pcrs
from ephemeralml.attestation.simulated.root import DevelopmentRoot
from ephemeralml.attestation.verify import endorsements_for, verify_evidence
from ephemeralml.receipts.issue import issue
from ephemeralml.receipts.verify import assess
from ephemeralml.wire.encoding import sha256

from .samples import CLAIMS, KEY, NOW, OTHER_PUBLIC, POLICY, PUBLIC


def trust_policy(root: DevelopmentRoot) -> TrustPolicy:
    pcrs = development_pcrs("worker")
    simulated = {
        "dangerous_allow": True,
        "root_fingerprint": root.fingerprint.hex(),
        "measurement_sets": [{"name": "dev", **{f"pcr{index}": pcrs[index].hex() for index in (0, 1, 2)}}],
    }
    wanted = {"version": "dev-1", "platforms": {"simulated": simulated}, "security_modes": ["evaluation"]}
    return load_policy(json.dumps(wanted).encode())


@pytest.mark.parametrize(
    ("attested_key", "modes", "codes", "level"),
    [
        (PUBLIC, ("production", "evaluation"), (), "provenance"),
        (PUBLIC, ("production",), ("EVALUATION_MODE_REJECTED",), "none"),
        (OTHER_PUBLIC, ("evaluation",), ("KEY_BINDING_FAILED",), "none"),
    ],
    ids=["bound", "not-wanted", "another-key"],
)
def test_a_simulated_worker(
    attested_key: bytes, modes: tuple[str, ...], codes: tuple[str, ...], level: str
) -> None:
    root = DevelopmentRoot.create(now=NOW - 1000)
    attester = SimulatedAttester(root, development_pcrs("worker"), now=lambda: NOW - 10)
    document = attester.attest(public_key=attested_key, user_data=bytes(32))
    wanted = trust_policy(root)
    verified = verify_evidence("simulated", document, endorsements_for(wanted), NOW)
    claims = replace(
        CLAIMS,
        security_mode="evaluation",
        attestation_doc_hash=sha256(document),
        enclave_measurements=attester.measurements(),
    )
    verification = assess(
        issue(claims, KEY),
        PUBLIC,
        replace(POLICY, security_modes=modes, expected_attestation_doc_hash=sha256(document)),
        NOW,
        verified_evidence=verified,
        appraisal=appraise(verified, wanted, NOW),
    )
    assert (verification.codes, verification.level) == (codes, level)
