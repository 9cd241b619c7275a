"""What a policy wants of GPUs, and what it refuses: closed where it says nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from ephemeralml.attestation import Appraisal, Platforms, TrustPolicy, appraise, load_policy
from ephemeralml.attestation.evidence import VerifiedEvidence
from ephemeralml.attestation.nvidia import NvidiaDetails, NvidiaPolicy, NvidiaVersions
from ephemeralml.attestation.nvidia.appraise import appraise_nvidia
from ephemeralml.attestation.nvidia.verify import verify
from ephemeralml.attestation.verify import Endorsements, verify_evidence, with_collateral
from ephemeralml.wire.bundle import Collateral
from ephemeralml.wire.errors import AppraisalError, MalformedError, VerificationError

from . import service
from .forge import (
    DRIVER,
    DRIVER_RIM,
    NOW,
    VBIOS,
    VBIOS_RIM,
    ReportParts,
    answers,
    block,
    device,
    driver_manifest,
    endorsements,
    leaf_first,
    make_evidence,
    make_ocsp,
    make_report,
    opaque,
    other_device,
    vbios_manifest,
)

GOOD = NvidiaVersions(name="r550", architecture="HOPPER", driver=DRIVER, vbios=VBIOS)


def policy(**changes: Any) -> NvidiaPolicy:
    whole: dict[str, Any] = {"measurement_sets": (GOOD,), "accept": ("local",), "modes": ("spt",)}
    return NvidiaPolicy(**(whole | changes))


def trust(wanted: NvidiaPolicy | None) -> TrustPolicy:
    return TrustPolicy(version="1", platforms=Platforms(nvidia=wanted))


def judge(verified: VerifiedEvidence, wanted: NvidiaPolicy | None, at: int = NOW) -> Appraisal:
    return appraise(verified, trust(wanted), NOW, stated_at=at)


def refused(verified: VerifiedEvidence, wanted: NvidiaPolicy | None) -> list[str]:
    with pytest.raises(AppraisalError) as caught:
        judge(verified, wanted)
    return [code for code, _ in caught.value.findings]


def gpu(parts: ReportParts | None = None, **changes: Any) -> VerifiedEvidence:
    return verify(make_evidence((make_report(parts), leaf_first(device()))), endorsements(**changes), NOW)


def of_service(**claims: object) -> VerifiedEvidence:
    value = service.answer(service.token(service.device_claims(**claims)))
    return verify(service.make_evidence(value), service.endorsements(), NOW)


def test_a_good_gpu_is_wanted() -> None:
    found = judge(gpu(), policy())
    assert (found.measurement_set, found.security_mode, found.findings) == ("r550", "production", ())


def test_its_age_is_that_of_what_it_accompanies() -> None:
    with pytest.raises(AppraisalError, match="EVIDENCE_STALE"):
        judge(gpu(), policy(), NOW - 86_401)
    assert ("AGE_NOT_CHECKED", "the evidence has no time of its own") in appraise(
        gpu(), trust(policy()), NOW
    ).findings


def test_a_good_answer_of_the_service_is_wanted() -> None:
    assert judge(of_service(), policy(accept=("nras",))).findings == ()
    assert refused(of_service(), policy()) == ["WAY_NOT_ALLOWED"]
    assert refused(gpu(), policy(accept=("nras",))) == ["WAY_NOT_ALLOWED"]


def test_an_empty_policy_refuses_everything() -> None:
    assert refused(gpu(), None) == ["PLATFORM_NOT_ALLOWED", "MEASUREMENT_MISMATCH"]
    assert refused(gpu(), NvidiaPolicy()) == ["WAY_NOT_ALLOWED", "MEASUREMENT_MISMATCH", "MODE_NOT_ALLOWED"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"driver": "550.90.08"}, "driver"),
        ({"vbios": "96.00.9F.00.02"}, "vbios"),
        ({"architecture": "BLACKWELL"}, "architecture"),
        ({"driver": "1.2", "vbios": "UNCHECKED"}, "driver"),
    ],
)
def test_another_release_is_refused(changes: dict[str, str], named: str) -> None:
    wanted = policy(measurement_sets=(GOOD.model_copy(update=changes),))
    assert refused(gpu(), wanted) == ["MEASUREMENT_MISMATCH"]
    with pytest.raises(AppraisalError, match=f"differs in {named}"):
        judge(gpu(), wanted)


def test_releases_are_matched_whole() -> None:
    first = NvidiaVersions(name="a", architecture="HOPPER", driver=DRIVER, vbios="96.00.00.00.00")
    second = NvidiaVersions(name="b", architecture="HOPPER", driver="1.2", vbios=VBIOS)
    assert refused(gpu(), policy(measurement_sets=(first, second))) == ["MEASUREMENT_MISMATCH"]
    assert judge(gpu(), policy(measurement_sets=(first, second, GOOD))).measurement_set == "r550"


def test_what_is_left_open_is_noted() -> None:
    wanted = policy(
        measurement_sets=(NvidiaVersions(name="a", architecture="HOPPER", driver=DRIVER, vbios="UNCHECKED"),),
        modes="UNCHECKED",
        rim="UNCHECKED",
        ocsp="UNCHECKED",
        firmware="UNCHECKED",
    )
    bare = gpu(ReportParts(opaque=opaque(f20=None, f36=None)), rims={}, ocsp=())
    findings = judge(bare, wanted).findings
    assert [detail for code, detail in findings if code == "UNCHECKED"] == [
        "vbios",
        "modes",
        "rim",
        "ocsp",
        "firmware",
    ]
    assert {"MEASUREMENTS_NOT_COMPARED", "OCSP_NOT_CHECKED", "FWID_NOT_STATED", "CC_MODE_NOT_STATED"} <= {
        code for code, _ in findings
    }


@pytest.mark.parametrize(
    ("parts", "changes", "code"),
    [
        (None, {"rims": {}}, "MEASUREMENTS_NOT_COMPARED"),
        (None, {"ocsp": ()}, "OCSP_NOT_CHECKED"),
        (ReportParts(opaque=opaque(f20=None)), {}, "FWID_NOT_STATED"),
        (ReportParts(opaque=opaque(f36=None)), {}, "MODE_NOT_ALLOWED"),
        (ReportParts(opaque=opaque(f36=b"\2", f21=b"\xaa")), {}, "MODE_NOT_ALLOWED"),
    ],
)
def test_what_was_not_checked_is_refused(
    parts: ReportParts | None, changes: dict[str, Any], code: str
) -> None:
    assert refused(gpu(parts, **changes), policy()) == [code]


def test_one_of_two_manifests_is_not_enough() -> None:
    assert refused(gpu(rims={DRIVER_RIM: driver_manifest()}), policy()) == ["MEASUREMENTS_NOT_COMPARED"]


def test_measurements_that_differ_are_refused_in_any_case() -> None:
    blocks = b"".join(block(index + 1, b"?" * 48 if index == 9 else None) for index in range(64))
    verified = gpu(ReportParts(blocks=blocks))
    assert refused(verified, policy()) == ["MEASUREMENT_MISMATCH"]
    assert refused(verified, policy(rim="UNCHECKED")) == ["MEASUREMENT_MISMATCH"]


def test_fewer_gpus_than_wanted_are_refused() -> None:
    assert refused(gpu(), policy(min_gpus=2)) == ["GPU_COUNT"]
    second = (make_report(key=other_device()[-1].key), leaf_first(other_device()))
    data = make_evidence((make_report(), leaf_first(device())), second)
    answer = make_ocsp(other_device()[3], other_device()[2])
    both = verify(data, endorsements(ocsp=(*answers(), answer)), NOW)
    assert judge(both, policy(min_gpus=2)).measurement_set == "r550"
    assert refused(verify(data, endorsements(), NOW), policy(min_gpus=2)) == ["OCSP_NOT_CHECKED"]


def test_one_gpu_of_another_release_refuses_both() -> None:
    other = make_report(ReportParts(opaque=opaque(f3=b"1.2\0")), other_device()[-1].key)
    data = make_evidence((make_report(), leaf_first(device())), (other, leaf_first(other_device())))
    found = verify(data, endorsements(), NOW)
    assert refused(found, policy(rim="UNCHECKED", ocsp="UNCHECKED")) == ["MEASUREMENT_MISMATCH"]


def test_a_switch_is_no_gpu() -> None:
    verified = gpu()
    switched = replace(verified, details=replace(NvidiaDetails.of(verified), kind="switch"), token=_token())
    assert refused(switched, policy()) == ["GPU_COUNT"]


def _token() -> object:
    from ephemeralml.attestation.evidence import VERIFIER_TOKEN

    return VERIFIER_TOKEN


def test_what_the_service_says_against_a_device_counts() -> None:
    assert refused(of_service(measres="fail"), policy(accept=("nras",))) == [
        "MEASUREMENTS_NOT_COMPARED",
        "NRAS_CLAIM",
    ]
    assert refused(of_service(secboot=False), policy(accept=("nras",))) == ["NRAS_CLAIM"]
    assert refused(of_service(dbgstat="enabled"), policy(accept=("nras",))) == [
        "DEBUG_NOT_ALLOWED",
        "NRAS_CLAIM",
        "SECURITY_MODE_NOT_ALLOWED",
    ]
    lax = policy(accept=("nras",), rim="UNCHECKED", ocsp="UNCHECKED", firmware="UNCHECKED", modes="UNCHECKED")
    assert refused(of_service(measres="fail"), lax) == ["NRAS_CLAIM"]
    value = service.answer(overall={"x-nvidia-overall-att-result": False})
    denied = verify(service.make_evidence(value), service.endorsements(), NOW)
    assert refused(denied, lax) == ["NRAS_RESULT_FALSE"]


def test_evidence_of_another_platform_is_not_read() -> None:
    verified = replace(gpu(), details=_NoDetails(), token=_token())
    with pytest.raises(VerificationError, match="WRONG_PLATFORM"):
        appraise_nvidia(verified, policy())


class _NoDetails:
    def binds_key(self, receipt_key: bytes) -> bool:
        return False

    def binds_announcement(self, digest: bytes) -> bool:
        return False

    def binds_nonce(self, nonce: bytes) -> bool:
        return False


def test_a_policy_is_written_and_read() -> None:
    written = trust(policy(required_with=("tdx",))).to_json().encode()
    read = load_policy(written)
    assert read.platforms.nvidia == policy(required_with=("tdx",))
    assert read.platforms.names("nvidia")
    assert read.platforms.required_with("tdx") == {"nvidia"}
    assert read.platforms.required_with("nitro") == frozenset()
    assert not Platforms().names("nvidia")


@pytest.mark.parametrize(
    "changes",
    [
        {"accept": ["anything"]},
        {"modes": ["off"]},
        {"modes": "ANY"},
        {"min_gpus": 0},
        {"min_gpus": 9},
        {"rim": "optional"},
        {"ocsp": None},
        {"required_with": ["nvidia"]},
        {"extra": 1},
        {"measurement_sets": [{"name": "a", "architecture": "HOPPER", "driver": DRIVER}]},
        {"measurement_sets": [{"name": "a", "architecture": "LS10", "driver": DRIVER, "vbios": VBIOS}]},
        {"measurement_sets": [{"name": "a", "architecture": "HOPPER", "driver": "550", "vbios": VBIOS}]},
        {
            "measurement_sets": [
                {"name": "a", "architecture": "HOPPER", "driver": DRIVER, "vbios": "96009F0001"}
            ]
        },
        {
            "measurement_sets": [
                {"name": "a", "architecture": "HOPPER", "driver": "UNCHECKED", "vbios": "UNCHECKED"}
            ]
        },
        {"measurement_sets": [GOOD.model_dump()] * 2},
    ],
)
def test_a_policy_that_says_something_else_is_refused(changes: dict[str, object]) -> None:
    text = json.dumps(
        {"version": "1", "platforms": {"nvidia": {**json.loads(policy().model_dump_json()), **changes}}}
    )
    with pytest.raises(MalformedError, match="BAD_POLICY"):
        load_policy(text.encode())


def test_collateral_that_travels_completes_what_is_at_hand() -> None:
    files = [
        Collateral("nvidia", f"{DRIVER_RIM}.swidtag", driver_manifest()),
        Collateral("nvidia", f"{VBIOS_RIM}.swidtag", vbios_manifest()),
        *(Collateral("nvidia", f"{place}.ocsp", data) for place, data in enumerate(answers())),
    ]
    bare = Endorsements(nvidia=endorsements(rims={}, ocsp=()))
    complete = with_collateral(bare, files)
    verified = verify_evidence("nvidia", make_evidence(), complete, NOW)
    assert judge(verified, policy()).findings == ()
    assert complete.nvidia.device_roots == bare.nvidia.device_roots


def test_one_gpu_that_the_service_judged_twice_is_one() -> None:
    """The service judges every report that it is sent, and says nothing of whose they are together."""

    def verified(*serials: object) -> VerifiedEvidence:
        tokens = [
            service.token(service.device_claims(ueid=one, jti=f"{at}")) for at, one in enumerate(serials)
        ]
        return verify(service.make_evidence(service.answer(*tokens)), service.endorsements(), NOW)

    two = policy(accept=("nras",), min_gpus=2)
    assert judge(verified("1", "2"), two).measurement_set == "r550"
    assert refused(verified("1", "1"), two) == ["GPU_COUNT"]
    assert refused(verified(..., ...), two) == ["GPU_COUNT"]
