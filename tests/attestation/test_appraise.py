"""Appraisal: whole sets, all findings, nothing by default; and the binding to keys."""

from __future__ import annotations

import doctest
import importlib
from typing import Any

import pytest

from ephemeralml.attestation import (
    DevelopmentRoot,
    MeasurementSet,
    Platforms,
    SimulatedAttester,
    SimulatedPolicy,
    TrustPolicy,
    VerifiedEvidence,
    appraise,
    check_binding,
    development_pcrs,
)
from ephemeralml.attestation.nitro import NitroEndorsements
from ephemeralml.attestation.nitro.verify import verify as verify_nitro
from ephemeralml.attestation.simulated import SimulatedEndorsements
from ephemeralml.attestation.simulated.verify import verify
from ephemeralml.wire.errors import AppraisalError, VerificationError

NOW = 1_700_000_000
ROOT = DevelopmentRoot.create(now=NOW)
PCRS = development_pcrs("worker")
OTHER = development_pcrs("other")
KEY, DIGEST = b"k" * 32, b"d" * 32


def document(pcrs: dict[int, bytes] | None = None, **bound: bytes) -> bytes:
    return SimulatedAttester(ROOT, PCRS if pcrs is None else pcrs, now=lambda: NOW).attest(**bound)


def evidence(pcrs: dict[int, bytes] | None = None, **bound: bytes) -> VerifiedEvidence:
    return verify(document(pcrs, **bound), SimulatedEndorsements((ROOT.fingerprint,)), NOW)


def production(pcrs: dict[int, bytes] | None = None) -> VerifiedEvidence:
    """The same document, verified as a real one: the tests' root plays the vendor's."""
    return verify_nitro(document(pcrs), NitroEndorsements((ROOT.fingerprint,)), NOW)


def wanted(name: str = "worker", **changes: str) -> MeasurementSet:
    registers = {f"pcr{index}": value.hex() for index, value in PCRS.items()}
    return MeasurementSet(name=name, **{**registers, **changes})


def nitro_policy(*sets: MeasurementSet, **changes: Any) -> TrustPolicy:
    return TrustPolicy(version="1", platforms=Platforms(nitro=sets), **changes)


def simulated_policy(
    *sets: MeasurementSet, root: bytes = ROOT.fingerprint, mode: Any = "evaluation"
) -> TrustPolicy:
    allowed = SimulatedPolicy(dangerous_allow=True, root_fingerprint=root.hex(), measurement_sets=sets)
    return TrustPolicy(version="1", platforms=Platforms(simulated=allowed), security_modes=(mode,))


def codes(verified: VerifiedEvidence, policy: TrustPolicy, now: int = NOW) -> list[str]:
    with pytest.raises(AppraisalError) as caught:
        appraise(verified, policy, now)
    assert caught.value.code == caught.value.findings[0][0]
    return [code for code, _ in caught.value.findings]


def test_a_wanted_enclave_is_production() -> None:
    verified = production()
    appraisal = appraise(verified, nitro_policy(wanted()), NOW)
    assert (appraisal.measurement_set, appraisal.security_mode) == ("worker", "production")
    assert appraisal.evidence_hash == verified.evidence_hash
    assert appraisal.findings == (("UNCHECKED", "pcr3"), ("UNCHECKED", "pcr4"), ("UNCHECKED", "pcr8"))


def test_a_wanted_simulated_tee_is_evaluation() -> None:
    appraisal = appraise(evidence(), simulated_policy(wanted()), NOW)
    assert (appraisal.measurement_set, appraisal.security_mode) == ("worker", "evaluation")
    assert "SIMULATED" in [code for code, _ in appraisal.findings]


def test_every_register_that_is_named_is_checked() -> None:
    zero = bytes(48).hex()
    assert appraise(production(), nitro_policy(wanted(pcr3=zero, pcr4=zero, pcr8=zero)), NOW).findings == ()
    for slot in ("pcr0", "pcr1", "pcr2", "pcr3", "pcr4", "pcr8"):
        assert codes(production(), nitro_policy(wanted(**{slot: "ab" * 48}))) == ["MEASUREMENT_MISMATCH"]


def test_an_unchecked_register_is_reported() -> None:
    appraisal = appraise(production(), nitro_policy(wanted(pcr1="UNCHECKED")), NOW)
    assert ("UNCHECKED", "pcr1") in appraisal.findings


def test_a_set_is_chosen_among_many() -> None:
    other = wanted("other", pcr0=OTHER[0].hex())
    assert appraise(production(), nitro_policy(other, wanted()), NOW).measurement_set == "worker"


def test_registers_of_two_sets_are_not_mixed() -> None:
    sets = (
        wanted("one", **{f"pcr{index}": value.hex() for index, value in OTHER.items()}),
        wanted("two"),
    )
    for index in PCRS:
        mixed = {**PCRS, index: OTHER[index]}
        assert codes(production(mixed), nitro_policy(*sets)) == ["MEASUREMENT_MISMATCH"]


def test_a_mismatch_names_the_nearest_set_and_its_registers() -> None:
    far = wanted("far", **{f"pcr{index}": value.hex() for index, value in OTHER.items()})
    with pytest.raises(AppraisalError, match="'near' differs in pcr1"):
        appraise(production(), nitro_policy(far, wanted("near", pcr1="ab" * 48)), NOW)


@pytest.mark.parametrize("verified", [production, evidence])
def test_an_empty_policy_refuses_everything(verified: Any) -> None:
    assert codes(verified(), TrustPolicy(version="1"))[:2] == ["PLATFORM_NOT_ALLOWED", "MEASUREMENT_MISMATCH"]


def test_default_policies_refuse_a_simulated_tee() -> None:
    assert "PLATFORM_NOT_ALLOWED" in codes(evidence(), nitro_policy(wanted()))


def test_a_simulated_set_wants_no_real_enclave() -> None:
    assert "PLATFORM_NOT_ALLOWED" in codes(production(), simulated_policy(wanted()))


def test_simulation_without_sets_is_refused() -> None:
    assert codes(evidence(), simulated_policy()) == ["MEASUREMENT_MISMATCH"]


def test_a_production_policy_refuses_evaluation() -> None:
    assert codes(evidence(), simulated_policy(wanted(), mode="production")) == ["SECURITY_MODE_NOT_ALLOWED"]


def test_another_development_root_is_refused() -> None:
    assert codes(evidence(), simulated_policy(wanted(), root=bytes(32))) == ["ROOT_NOT_ALLOWED"]


def test_debug_is_refused_even_where_its_zeros_are_wanted() -> None:
    zero = bytes(48).hex()
    zeros = wanted("zeros", pcr0=zero, pcr1=zero, pcr2=zero)
    refused = codes(production({}), nitro_policy(zeros))
    assert refused == ["DEBUG_NOT_ALLOWED", "SECURITY_MODE_NOT_ALLOWED"]
    allowed = nitro_policy(zeros, dangerous_allow_debug=True, security_modes=("evaluation",))
    assert appraise(production({}), allowed, NOW).security_mode == "evaluation"


def test_age_is_held_to_the_policy() -> None:
    policy = nitro_policy(wanted(), max_evidence_age_s=600)
    appraise(production(), policy, NOW + 600)
    appraise(production(), policy, NOW - 300)
    assert codes(production(), policy, NOW + 601) == ["EVIDENCE_STALE"]
    assert codes(production(), policy, NOW - 301) == ["EVIDENCE_FUTURE"]


def test_all_findings_are_collected() -> None:
    policy = simulated_policy(wanted(), root=bytes(32), mode="production")
    assert codes(evidence({}), policy, NOW + 10**6) == [
        "DEBUG_NOT_ALLOWED",
        "ROOT_NOT_ALLOWED",
        "MEASUREMENT_MISMATCH",
        "SECURITY_MODE_NOT_ALLOWED",
        "EVIDENCE_STALE",
    ]


# ------------------------------------------------------------------ binding


def test_bound_evidence_passes() -> None:
    verified = evidence(public_key=KEY, user_data=DIGEST)
    check_binding(verified, KEY, DIGEST)
    check_binding(verified, KEY, None)


@pytest.mark.parametrize("key", [b"K" + KEY[1:], b"", KEY[:-1], KEY + b"k"])
def test_another_key_is_not_bound(key: bytes) -> None:
    with pytest.raises(VerificationError, match="KEY_BINDING_FAILED"):
        check_binding(evidence(public_key=KEY, user_data=DIGEST), key, DIGEST)


@pytest.mark.parametrize("digest", [b"D" + DIGEST[1:], b"", DIGEST[:-1]])
def test_another_announcement_is_not_bound(digest: bytes) -> None:
    with pytest.raises(VerificationError, match="ANNOUNCEMENT_BINDING_FAILED"):
        check_binding(evidence(public_key=KEY, user_data=DIGEST), KEY, digest)


def test_absent_values_bind_nothing() -> None:
    for key in (KEY, b""):
        with pytest.raises(VerificationError, match="KEY_BINDING_FAILED"):
            check_binding(evidence(), key, None)
    for digest in (DIGEST, b""):
        with pytest.raises(VerificationError, match="ANNOUNCEMENT_BINDING_FAILED"):
            check_binding(evidence(public_key=KEY), KEY, digest)


@pytest.mark.parametrize("name", ["", ".attest", ".nitro", ".simulated"])
def test_the_examples_of_the_front_pages_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"ephemeralml.attestation{name}"))
    assert result.attempted
    assert not result.failed
