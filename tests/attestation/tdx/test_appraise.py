"""Verified quotes against policies: closed by default, whole sets, everything by name."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
from pydantic import ValidationError

from ephemeralml.attestation.appraise import appraise
from ephemeralml.attestation.bundle import VerifiedBundle, appraise_bundle
from ephemeralml.attestation.evidence import VerifiedEvidence
from ephemeralml.attestation.nitro.details import NitroDetails
from ephemeralml.attestation.policy import Platforms, load_policy
from ephemeralml.attestation.tdx import TdxDetails, TdxMeasurementSet, TdxPolicy
from ephemeralml.attestation.tdx.appraise import appraise_tdx
from ephemeralml.attestation.tdx.verify import verify
from ephemeralml.wire.errors import AppraisalError, VerificationError

from ..nvidia.test_policy import gpu
from .faults import attributes
from .forge import COMPONENTS, DAY, NOW, Forge

SET: dict[str, Any] = {
    "name": "release-1",
    "mrtd": "d0" * 48,
    **{f"rtmr{index}": f"0{index + 1}" * 48 for index in range(4)},
}
TDX: dict[str, Any] = {
    "measurement_sets": [SET],
    "mrseams": ["5e" * 48],
    "xfams": ["E702060000000000"],
    "attributes": ["0000001000000000"],
}


@cache
def verified(name: str = "good") -> VerifiedEvidence:
    forge = {
        "good": Forge(),
        "old": Forge(components=(4, *COMPONENTS[1:])),
        "debug": Forge(report=attributes(1 << 28 | 1)),
    }[name]
    return verify(forge.quote(), forge.endorsements(), NOW)


def judged(changes: dict[str, Any], name: str = "good", now: int = NOW) -> set[str]:
    policy = TdxPolicy.model_validate_json(json.dumps({**TDX, **changes}))
    return {code for code, _ in appraise_tdx(verified(name), policy, now).refusals}


def test_what_is_wanted_is_accepted() -> None:
    policy = load_policy(json.dumps({"version": "1", "platforms": {"tdx": TDX}}).encode())
    found = appraise(verified(), policy, NOW, stated_at=NOW)
    assert (found.measurement_set, found.security_mode, found.findings) == ("release-1", "production", ())


def test_an_empty_policy_refuses_everything() -> None:
    refusals = appraise_tdx(verified(), TdxPolicy(), NOW).refusals
    assert [code for code, _ in refusals] == [
        "MEASUREMENT_MISMATCH",
        "MRSEAM_NOT_ALLOWED",
        "XFAM_NOT_ALLOWED",
        "ATTRIBUTES_NOT_ALLOWED",
    ]


@pytest.mark.parametrize("register", [name for name in SET if name != "name"])
def test_every_register_must_match(register: str) -> None:
    other = {**SET, register: "ff" * 48}
    assert judged({"measurement_sets": [other]}) == {"MEASUREMENT_MISMATCH"}
    assert judged({"measurement_sets": [other, {**SET, "name": "release-2"}]}) == set()


def test_registers_of_two_sets_do_not_mix() -> None:
    sets = [{**SET, "rtmr0": "ff" * 48}, {**SET, "name": "release-2", "rtmr1": "ff" * 48}]
    assert judged({"measurement_sets": sets}) == {"MEASUREMENT_MISMATCH"}


@pytest.mark.parametrize(
    ("changes", "name", "codes"),
    [
        ({"mrseams": ["00" * 48]}, "good", {"MRSEAM_NOT_ALLOWED"}),
        ({"xfams": ["00" * 8]}, "good", {"XFAM_NOT_ALLOWED"}),
        ({"attributes": ["00" * 8]}, "good", {"ATTRIBUTES_NOT_ALLOWED"}),
        ({"mrseams": "UNCHECKED", "xfams": "UNCHECKED", "attributes": "UNCHECKED"}, "good", set()),
        ({"accepted_tcb_statuses": []}, "good", {"TCB_STATUS_NOT_ALLOWED"}),
        ({}, "old", {"TCB_STATUS_NOT_ALLOWED", "ADVISORY_NOT_ALLOWED"}),
        (
            {"accepted_tcb_statuses": ["OutOfDate"], "allowed_advisory_ids": "UNCHECKED"},
            "old",
            {"TCB_STATUS_NOT_ALLOWED"},
        ),
        ({"accepted_tcb_statuses": ["SWHardeningNeeded"], "allowed_advisory_ids": "UNCHECKED"}, "old", set()),
        (
            {"accepted_tcb_statuses": ["SWHardeningNeeded"]},
            "old",
            {"ADVISORY_NOT_ALLOWED"},
        ),
        (
            {"accepted_tcb_statuses": ["SWHardeningNeeded"], "allowed_advisory_ids": ["INTEL-SA-00001"]},
            "old",
            set(),
        ),
        ({"min_evaluation_number": 17}, "good", set()),
        ({"min_evaluation_number": 18}, "good", {"EVALUATION_NUMBER"}),
        ({"max_collateral_age_s": 5 * DAY}, "good", set()),
        ({"max_collateral_age_s": 5 * DAY - 1}, "good", {"COLLATERAL_STALE"}),
        ({}, "debug", {"ATTRIBUTES_NOT_ALLOWED"}),
    ],
)
def test_each_rule_refuses_by_its_own_code(changes: dict[str, Any], name: str, codes: set[str]) -> None:
    assert judged(changes, name) == codes


def test_what_is_left_open_is_noted() -> None:
    changes = {"measurement_sets": [{**SET, "rtmr3": "UNCHECKED"}], "xfams": "UNCHECKED"}
    policy = TdxPolicy.model_validate_json(json.dumps({**TDX, **changes}))
    assert appraise_tdx(verified(), policy, NOW).notes == (("UNCHECKED", "rtmr3"), ("UNCHECKED", "xfams"))


def test_a_status_is_visible_without_a_policy_and_with_one() -> None:
    assert verified("old").findings == (("TCB_SWHardeningNeeded", "INTEL-SA-00001"),)
    tdx = {
        **TDX,
        "accepted_tcb_statuses": ["SWHardeningNeeded"],
        "allowed_advisory_ids": ["INTEL-SA-00001"],
    }
    policy = load_policy(json.dumps({"version": "1", "platforms": {"tdx": tdx}}).encode())
    assert ("TCB_SWHardeningNeeded", "INTEL-SA-00001") in appraise(verified("old"), policy, NOW).findings


def test_debug_is_refused_unless_it_is_allowed_by_name() -> None:
    document: dict[str, Any] = {"version": "1", "platforms": {"tdx": {**TDX, "attributes": "UNCHECKED"}}}
    with pytest.raises(AppraisalError) as caught:
        appraise(verified("debug"), load_policy(json.dumps(document).encode()), NOW)
    assert "DEBUG_NOT_ALLOWED" in dict(caught.value.findings)
    document |= {"dangerous_allow_debug": True, "security_modes": ["evaluation"]}
    found = appraise(verified("debug"), load_policy(json.dumps(document).encode()), NOW)
    assert found.security_mode == "evaluation"


def test_a_policy_without_tdx_wants_none() -> None:
    with pytest.raises(AppraisalError) as caught:
        appraise(verified(), load_policy(b'{"version":"1"}'), NOW)
    assert caught.value.code == "PLATFORM_NOT_ALLOWED"


def test_companions_are_asked_for() -> None:
    needed = Platforms(tdx=TdxPolicy(requires=("confidential-space", "nvidia")))
    assert needed.names("tdx")
    assert needed.required_with("tdx") == {"confidential-space", "nvidia"}
    assert needed.required_with("nitro") == frozenset()


@pytest.mark.parametrize(
    "wrong",
    [
        {"measurement_sets": [{**SET, "mrtd": "UNCHECKED"}]},
        {"measurement_sets": [{name: value for name, value in SET.items() if name != "rtmr2"}]},
        {"measurement_sets": [SET, SET]},
        {"accepted_tcb_statuses": ["Revoked"]},
        {"accepted_tcb_statuses": ["uptodate"]},
        {"xfams": ["00"]},
        {"attributes": None},
        {"allowed_advisory_ids": None},
        {"requires": ["nitro"]},
        {"max_collateral_age_s": 0},
        {"anything": 1},
    ],
)
def test_policies_that_are_wrong_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TdxPolicy.model_validate_json(json.dumps({**TDX, **wrong}))


def test_sets_can_be_made_in_code() -> None:
    one = TdxMeasurementSet(**SET)
    assert list(one.registers) == ["mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3"]


def test_details_are_asked_of_their_own_platform() -> None:
    with pytest.raises(VerificationError) as caught:
        NitroDetails.of(verified())
    assert caught.value.code == "WRONG_PLATFORM"
    assert TdxDetails.of(verified()).tcb_status == "UpToDate"


def test_a_companion_that_is_required_must_be_judged_too() -> None:
    """To require GPUs and not to say what they must be would accept anybody's, debugged ones too."""
    wants = {"version": "1", "platforms": {"tdx": {**TDX, "requires": ["nvidia"]}}}
    whole = VerifiedBundle(verified(), (gpu(),))
    with pytest.raises(AppraisalError, match="COMPANION_MISSING"):
        appraise_bundle(whole, load_policy(json.dumps(wants).encode()), NOW, stated_at=NOW)
