"""A verifier's signed verdict: what it says, and that nobody can make it say more."""

from __future__ import annotations

from dataclasses import replace

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ephemeralml.receipts.checks import Verification
from ephemeralml.receipts.ear import AttestationResult, issue_ear, result_of, verify_ear
from ephemeralml.receipts.issue import issue
from ephemeralml.receipts.policy import ReceiptPolicy
from ephemeralml.receipts.verify import assess, verify_receipt
from ephemeralml.wire.cose import decode_sign1, sign1, verify_with_library
from ephemeralml.wire.encoding import encode
from ephemeralml.wire.errors import ConfigurationError, Error, MalformedError, VerificationError

from .samples import (
    CLAIMS,
    EVALUATION,
    KEY,
    NOW,
    OTHER_PUBLIC,
    POLICY,
    PUBLIC,
    appraisal,
    evidence,
)

VERIFIER = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
VERIFIER_PUBLIC = VERIFIER.public_key().public_bytes_raw()
RECEIPT = issue(CLAIMS, KEY)
PROVEN = assess(RECEIPT, PUBLIC, POLICY, NOW, verified_evidence=evidence(), appraisal=appraisal())
UNBOUND = assess(RECEIPT, PUBLIC, None, NOW, verified_evidence=evidence(), appraisal=appraisal())
SIMULATED = assess(
    issue(EVALUATION, KEY),
    PUBLIC,
    replace(POLICY, security_modes=("evaluation",)),
    NOW,
    verified_evidence=evidence(simulated=True),
    appraisal=appraisal(),
)
OTHER_KEY = assess(
    RECEIPT, PUBLIC, POLICY, NOW, verified_evidence=evidence(public_key=OTHER_PUBLIC), appraisal=appraisal()
)


def made(found: Verification, **more: object) -> bytes:
    return issue_ear(result_of(found, NOW, build="1", **more), VERIFIER)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "tier", "vector"),
    [
        (PROVEN, "affirming", {"instance-identity": 2, "executables": 2, "hardware": 2}),
        (UNBOUND, "warning", {"instance-identity": 2, "executables": 2, "hardware": 2}),
        (SIMULATED, "warning", {"instance-identity": 2, "configuration": 32, "executables": 2}),
        (verify_receipt(RECEIPT, PUBLIC, POLICY, NOW), "none", {}),
        (verify_receipt(RECEIPT, PUBLIC, None, NOW), "none", {}),
        (verify_receipt(b"", PUBLIC, None, NOW), "contraindicated", {}),
        (verify_receipt(RECEIPT, OTHER_PUBLIC, None, NOW), "contraindicated", {"instance-identity": 99}),
        (OTHER_KEY, "contraindicated", {"instance-identity": 99}),
        (
            verify_receipt(RECEIPT, PUBLIC, ReceiptPolicy(expected_model_hash=bytes(32)), NOW),
            "contraindicated",
            {},
        ),
    ],
)
def test_each_verdict_has_its_tier(found: Verification, tier: str, vector: dict[str, int]) -> None:
    result = verify_ear(made(found), VERIFIER_PUBLIC, NOW)
    assert (result.tier, dict(result.vector)) == (tier, vector)
    assert (result.level, result.bound, result.codes) == (found.level, found.bound, found.codes)
    assert result.receipt_hash == found.receipt_hash
    assert len(result.skipped) == len(found.skipped)


def test_the_claims_are_those_of_the_draft() -> None:
    data = made(PROVEN, policy_id="release-1", nonce=b"challenge")
    assert verify_with_library(data, VERIFIER_PUBLIC)
    claims = cbor2.loads(decode_sign1(data).payload)
    assert claims.pop(266)["ai-inference-receipt"].items() >= {
        (1000, 2),
        (1003, "release-1"),
    }
    assert claims == {
        6: NOW,
        10: b"challenge",
        265: "tag:github.com,2023:veraison/ear",
        1004: {0: "ephemeralml", 1: "1"},
    }


def test_every_flipped_byte_is_refused() -> None:
    data = made(PROVEN)
    for place in range(len(data)):
        with pytest.raises(Error):
            verify_ear(data[:place] + bytes([data[place] ^ 0x41]) + data[place + 1 :], VERIFIER_PUBLIC, NOW)


def test_a_receipt_is_no_result_and_a_result_no_receipt() -> None:
    with pytest.raises(MalformedError, match="BAD_PROTECTED_HEADER"):
        verify_ear(RECEIPT, PUBLIC, NOW)
    assert verify_receipt(made(PROVEN), VERIFIER_PUBLIC, None, NOW).codes == ("BAD_CONTENT_TYPE",)


def test_time_and_challenge_are_held() -> None:
    data = made(PROVEN, nonce=b"challenge")
    assert verify_ear(data, VERIFIER_PUBLIC, NOW + 60, max_age_s=60, expected_nonce=b"challenge").nonce
    for now, wanted, code in (
        (NOW - 301, None, "TIMESTAMP_FUTURE"),
        (NOW + 61, None, "TIMESTAMP_STALE"),
        (NOW, b"another one", "NONCE_MISMATCH"),
    ):
        with pytest.raises(VerificationError, match=code):
            verify_ear(data, VERIFIER_PUBLIC, now, max_age_s=60, expected_nonce=wanted)
    with pytest.raises(VerificationError, match="NONCE_MISMATCH"):
        verify_ear(made(PROVEN), VERIFIER_PUBLIC, NOW, expected_nonce=b"challenge")


SOUND: AttestationResult = result_of(PROVEN, NOW, build="1")


@pytest.mark.parametrize(
    "change",
    [
        {"build": ""},
        {"iat": 0},
        {"nonce": b"short"},
        {"policy_id": ""},
        {"receipt_hash": b""},
        {"codes": ("X",)},
        {"bound": False},
        {"level": "bound"},
        {"level": "none"},
        {"tier": "contraindicated"},
        {"vector": {}},
        {"vector": {"hardware": 96}},
        {"vector": {"hardware": 128}},
    ],
)
def test_no_contradiction_is_signed(change: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match="BAD_EAR"):
        issue_ear(replace(SOUND, **change), VERIFIER)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        {265: "tag:ietf.org,2026:rats/ear#04"},
        {266: {}},
        {266: {"other": {1000: 2}}},
        {1004: {0: "someone", 1: "1"}},
        {1: "more"},
    ],
)
def test_a_result_of_another_kind_is_refused(change: dict[object, object]) -> None:
    claims = cbor2.loads(decode_sign1(made(PROVEN)).payload) | change
    data = sign1(encode(claims), VERIFIER, protected={1: -8, 3: "application/eat+cwt"})
    with pytest.raises(MalformedError):
        verify_ear(data, VERIFIER_PUBLIC, NOW)
