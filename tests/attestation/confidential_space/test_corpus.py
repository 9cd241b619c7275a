"""Tokens recorded on real machines verify at their own time, and say what they are."""

from __future__ import annotations

import pytest

from ephemeralml.attestation.appraise import appraise
from ephemeralml.attestation.confidential_space import (
    GOOGLE_CONFIDENTIAL_SPACE_ROOT,
    ConfidentialSpaceDetails,
    ConfidentialSpaceEndorsements,
    ConfidentialSpacePolicy,
    WorkloadImage,
)
from ephemeralml.attestation.confidential_space.show import show
from ephemeralml.attestation.confidential_space.verify import verify
from ephemeralml.attestation.policy import Platforms, TrustPolicy
from ephemeralml.attestation.verify import Endorsements, stated_time, verify_evidence
from ephemeralml.wire.errors import AppraisalError, Error

from ...corpus import corpus

PKI = "flare_pki_2025-10-28.jwt"
OIDC = ("synddb_oidc_2025-12-02_0.jwt", "synddb_oidc_2025-12-02_1.jwt")
ISSUED = {PKI: 1_761_669_801, OIDC[0]: 1_764_708_636, OIDC[1]: 1_764_708_636}


def token(name: str) -> bytes:
    return corpus(f"gcp-cs/{name}").read_bytes()


def endorsements() -> ConfidentialSpaceEndorsements:
    return ConfidentialSpaceEndorsements.from_files(
        {"jwks.json": corpus("gcp-cs/synddb_jwks_2025-12-02.json").read_bytes()}
    )


@pytest.mark.parametrize("name", [PKI, *OIDC])
@pytest.mark.parametrize("later", [0, 1, 3599])
def test_recorded_tokens_are_genuine_and_of_debug_images(name: str, later: int) -> None:
    verified = verify(token(name), endorsements(), ISSUED[name] + later)
    details = ConfidentialSpaceDetails.of(verified)
    assert verified.debug
    assert (verified.issued_at, verified.not_after) == (ISSUED[name], ISSUED[name] + 3599)
    assert details.token_type == ("PKI" if name == PKI else "OIDC")
    assert (details.debug_status, details.hardware_model) == ("enabled", "GCP_AMD_SEV")
    assert (details.secure_boot, details.support_attributes) == (True, None)


def test_the_pki_token_ends_at_the_pinned_root() -> None:
    verified = verify_evidence("confidential-space", token(PKI), Endorsements(), ISSUED[PKI])
    assert verified.root_fingerprint == GOOGLE_CONFIDENTIAL_SPACE_ROOT
    assert [code for code, _ in verified.findings] == ["REVOCATION_NOT_CHECKED"]


@pytest.mark.parametrize("name", [PKI, *OIDC])
@pytest.mark.parametrize(
    ("later", "code"), [(-1, "TOKEN_NOT_YET_VALID"), (3600, "TOKEN_EXPIRED"), (10**8, None)]
)
def test_recorded_tokens_have_their_hour(name: str, later: int, code: str | None) -> None:
    with pytest.raises(Error) as caught:
        verify(token(name), endorsements(), ISSUED[name] + later)
    assert caught.value.code == code or (code is None and caught.value.code.endswith("EXPIRED"))


def test_an_oidc_token_needs_its_key() -> None:
    with pytest.raises(Error, match="NO_COLLATERAL"):
        verify(token(OIDC[0]), ConfidentialSpaceEndorsements(), ISSUED[OIDC[0]])


def test_the_tampered_token_is_refused() -> None:
    with pytest.raises(Error) as caught:
        verify(token("NEG_DERIVED_payload_tamper.jwt"), endorsements(), ISSUED[OIDC[0]])
    assert caught.value.code == "BAD_JSON"


def test_nonces_are_read_in_both_forms() -> None:
    found = [
        ConfidentialSpaceDetails.of(verify(token(name), endorsements(), ISSUED[name])).nonces for name in OIDC
    ]
    assert found == [(), ("sp1-test-nonce-1764708636",)]


def test_a_debug_image_is_evaluation_at_best() -> None:
    verified = verify(token(PKI), endorsements(), ISSUED[PKI])
    details = ConfidentialSpaceDetails.of(verified)
    wanted = ConfidentialSpacePolicy(
        images=(WorkloadImage(name="recorded", image_digest=details.image_digest),),
        audience=details.audience,
        hwmodels=("GCP_AMD_SEV",),
        service_accounts=details.service_accounts,
        min_swversion="251000",
        gpu_cc_mode="UNCHECKED",
        support_attributes="UNCHECKED",
        env_overrides=("LOG_LEVEL",),
    )
    policy = TrustPolicy(
        version="1",
        platforms=Platforms(confidential_space=wanted),
        security_modes=("production", "evaluation"),
    )
    with pytest.raises(AppraisalError, match="DEBUG_NOT_ALLOWED"):
        appraise(verified, policy, ISSUED[PKI])
    allowed = policy.model_copy(update={"dangerous_allow_debug": True})
    assert appraise(verified, allowed, ISSUED[PKI]).security_mode == "evaluation"


@pytest.mark.parametrize("name", [PKI, *OIDC])
def test_tokens_state_their_time_and_are_shown(name: str) -> None:
    assert stated_time("confidential-space", token(name)) == ISSUED[name]
    shown = dict(show(token(name)))
    assert shown["debugging"] == "enabled"
    assert "secboot" not in shown
