"""Genuine tokens held against policies: every claim is checked unless it reads UNCHECKED."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from ephemeralml.attestation.appraise import appraise
from ephemeralml.attestation.confidential_space import ConfidentialSpacePolicy, WorkloadImage
from ephemeralml.attestation.confidential_space.appraise import appraise_confidential_space
from ephemeralml.attestation.confidential_space.verify import verify
from ephemeralml.attestation.policy import Platforms, TrustPolicy, load_policy
from ephemeralml.wire.errors import AppraisalError, VerificationError

from ..nitro.forge import make_chain as nitro_chain
from ..nitro.forge import make_document
from .forge import ACCOUNT, AUDIENCE, HOUR, IMAGE, NOW, issuer, oidc

GOOD: dict[str, Any] = {
    "images": [{"name": "worker-1", "image_digest": IMAGE}],
    "audience": AUDIENCE,
    "hwmodels": ["GCP_INTEL_TDX"],
    "service_accounts": [ACCOUNT],
    "min_swversion": "251001",
    "gpu_cc_mode": "ON",
    "env_overrides": ["POOL"],
}
OTHER = "sha256:" + "ee" * 32


def policy(**changes: Any) -> ConfidentialSpacePolicy:
    return ConfidentialSpacePolicy.model_validate_json(json.dumps(GOOD | changes))


def codes(token: dict[str, object], **wanted: Any) -> list[str]:
    judged = appraise_confidential_space(verify(oidc(token), issuer(), NOW), policy(**wanted))
    return [code for code, _ in judged.refusals]


def test_a_wanted_token_is_accepted() -> None:
    judged = appraise_confidential_space(verify(oidc(), issuer(), NOW), policy())
    assert (judged.matched, judged.refusals, judged.notes) == ("worker-1", (), ())


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({"submods/container/image_digest": OTHER}, "MEASUREMENT_MISMATCH"),
        ({"submods/container/image_digest": IMAGE.upper()}, "MEASUREMENT_MISMATCH"),
        ({"submods/container/image_digest": IMAGE[7:]}, "MEASUREMENT_MISMATCH"),
        ({"submods/container/image_digest": IMAGE + "\0"}, "MEASUREMENT_MISMATCH"),
        ({"submods/container/image_digest": "sha256:ï"}, "MEASUREMENT_MISMATCH"),
        ({"aud": AUDIENCE + "/"}, "AUDIENCE_MISMATCH"),
        ({"aud": "https://sts.googleapis.com"}, "AUDIENCE_MISMATCH"),
        ({"secboot": False}, "SECURE_BOOT_OFF"),
        ({"swname": "GCE"}, "SWNAME_NOT_ALLOWED"),
        ({"hwmodel": "GCP_AMD_SEV"}, "HWMODEL_NOT_ALLOWED"),
        ({"hwmodel": "GCP_SHIELDED_VM"}, "HWMODEL_NOT_ALLOWED"),
        ({"submods/confidential_space/support_attributes": ["USABLE"]}, "SUPPORT_ATTRIBUTE_MISSING"),
        ({"submods/confidential_space/support_attributes": []}, "SUPPORT_ATTRIBUTE_MISSING"),
        ({"submods/confidential_space/support_attributes": ...}, "SUPPORT_ATTRIBUTE_MISSING"),
        ({"submods/confidential_space": ...}, "SUPPORT_ATTRIBUTE_MISSING"),
        ({"swversion": ["251000"]}, "SWVERSION_TOO_OLD"),
        ({"swversion": ["20251001"]}, "SWVERSION_TOO_OLD"),
        ({"swversion": ["99"]}, "SWVERSION_TOO_OLD"),
        ({"swversion": ["latest"]}, "SWVERSION_TOO_OLD"),
        ({"google_service_accounts": []}, "SERVICE_ACCOUNT_NOT_ALLOWED"),
        ({"google_service_accounts": ...}, "SERVICE_ACCOUNT_NOT_ALLOWED"),
        ({"google_service_accounts": ["x@y"]}, "SERVICE_ACCOUNT_NOT_ALLOWED"),
        ({"submods/nvidia_gpu/cc_mode": "DEVTOOLS"}, "GPU_CC_MODE_NOT_ALLOWED"),
        ({"submods/nvidia_gpu/cc_mode": "OFF"}, "GPU_CC_MODE_NOT_ALLOWED"),
        ({"submods/nvidia_gpu": ...}, "GPU_CC_MODE_NOT_ALLOWED"),
        ({"submods/container/env_override": {"POOL": "a", "LD_PRELOAD": "b"}}, "ENV_OVERRIDE"),
        ({"submods/container/cmd_override": ["--debug"]}, "CMD_OVERRIDE"),
    ],
)
def test_one_unwanted_claim_is_one_refusal(said: dict[str, object], code: str) -> None:
    assert codes(said) == [code]


def test_all_wanted_support_attributes_must_be_there() -> None:
    said: dict[str, object] = {"submods/confidential_space/support_attributes": ["STABLE", "USABLE"]}
    assert codes(said, support_attributes=["USABLE", "STABLE"]) == []
    assert codes(said, support_attributes=["LATEST", "STABLE"]) == ["SUPPORT_ATTRIBUTE_MISSING"]


def test_every_reason_is_named() -> None:
    said = {"secboot": False, "aud": "somebody", "submods/container/image_digest": OTHER}
    assert codes(said) == ["MEASUREMENT_MISMATCH", "AUDIENCE_MISMATCH", "SECURE_BOOT_OFF"]


def test_another_issuer_is_refused_even_where_it_is_endorsed() -> None:
    assert codes({}, issuer="https://portal.trustauthority.intel.com") == ["ISSUER_MISMATCH"]


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("service_accounts", {"google_service_accounts": []}),
        ("min_swversion", {"swversion": ["1"]}),
        ("gpu_cc_mode", {"submods/nvidia_gpu": ...}),
        ("support_attributes", {"submods/confidential_space": ...}),
        ("env_overrides", {"submods/container/env_override": {"LD_PRELOAD": "x"}}),
        ("cmd_override", {"submods/container/cmd_override": ["sh"]}),
    ],
)
def test_unchecked_is_written_out_and_noted(field: str, said: dict[str, object]) -> None:
    verified = verify(oidc(said), issuer(), NOW)
    judged = appraise_confidential_space(verified, policy(**{field: "UNCHECKED"}))
    assert (judged.matched, judged.refusals, judged.notes) == ("worker-1", (), (("UNCHECKED", field),))


def test_images_are_matched_whole_and_none_wants_nothing() -> None:
    images = [{"name": "a", "image_digest": OTHER}, {"name": "b", "image_digest": IMAGE}]
    judged = appraise_confidential_space(verify(oidc(), issuer(), NOW), policy(images=images))
    assert judged.matched == "b"
    assert codes({}, images=[]) == ["MEASUREMENT_MISMATCH"]


@pytest.mark.parametrize(
    "changes",
    [
        {"images": [{"name": "a", "image_digest": "UNCHECKED"}]},
        {"images": [{"name": "a", "image_digest": "ab" * 32}]},
        {"images": [{"name": "a", "image_digest": IMAGE}, {"name": "a", "image_digest": OTHER}]},
        {"images": [{"name": "a", "image_digest": IMAGE}, {"name": "b", "image_digest": IMAGE}]},
        {"audience": ""},
        {"audience": None},
        {"audience": "x" * 513},
        {"hwmodels": []},
        {"hwmodels": ["GCP_SHIELDED_VM"]},
        {"hwmodels": "UNCHECKED"},
        {"service_accounts": []},
        {"service_accounts": None},
        {"support_attributes": []},
        {"support_attributes": ["SUPPORTED"]},
        {"min_swversion": "latest"},
        {"min_swversion": 251001},
        {"gpu_cc_mode": "DEVTOOLS"},
        {"gpu_cc_mode": "OFF"},
        {"cmd_override": "ANY"},
        {"secboot": False},
    ],
)
def test_policies_are_closed(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        policy(**changes)


@pytest.mark.parametrize("field", [name for name in GOOD if name not in ("env_overrides",)])
def test_nothing_is_left_out_of_a_policy(field: str) -> None:
    with pytest.raises(ValidationError):
        ConfidentialSpacePolicy.model_validate({key: value for key, value in GOOD.items() if key != field})


def test_a_policy_document_names_the_platform() -> None:
    text = json.dumps({"version": "7", "platforms": {"confidential-space": GOOD}}).encode()
    loaded = load_policy(text)
    assert loaded.platforms.names("confidential-space")
    assert load_policy(loaded.to_json().encode()) == loaded
    assert '"confidential-space"' in loaded.to_json()


def test_the_whole_appraisal() -> None:
    wanted = TrustPolicy(version="1", platforms=Platforms(confidential_space=policy()), max_evidence_age_s=60)
    verified = verify(oidc(), issuer(), NOW)
    accepted = appraise(verified, wanted, NOW + 60)
    assert (accepted.measurement_set, accepted.security_mode) == ("worker-1", "production")
    with pytest.raises(AppraisalError, match="EVIDENCE_STALE"):
        appraise(verified, wanted, NOW + 61)
    with pytest.raises(AppraisalError, match="DEBUG_NOT_ALLOWED"):
        appraise(verify(oidc({"dbgstat": "enabled"}), issuer(), NOW), wanted, NOW)
    with pytest.raises(AppraisalError, match="PLATFORM_NOT_ALLOWED"):
        appraise(verified, TrustPolicy(version="1"), NOW + HOUR)


def test_evidence_of_another_platform_is_not_read() -> None:
    from ephemeralml.attestation.nitro import NitroEndorsements
    from ephemeralml.attestation.nitro.verify import verify as verify_nitro

    chain = nitro_chain()
    document = verify_nitro(make_document(chain), NitroEndorsements(chain.roots), NOW)
    with pytest.raises(VerificationError, match="WRONG_PLATFORM"):
        appraise_confidential_space(document, policy())


def test_a_workload_image_has_a_digest() -> None:
    with pytest.raises(ValidationError):
        WorkloadImage(name="a", image_digest="sha256:" + "AB" * 32)
