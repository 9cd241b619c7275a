"""GPUs beside a CPU: of one machine by the nonce, required where the policy says so."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from ephemeralml.attestation import Appraisal, MeasurementSet, Platforms, TrustPolicy
from ephemeralml.attestation.bundle import VerifiedBundle, appraise_bundle, verify_bundle
from ephemeralml.attestation.nitro import NitroEndorsements
from ephemeralml.attestation.nvidia import NvidiaPolicy
from ephemeralml.attestation.verify import Endorsements
from ephemeralml.wire.bundle import Collateral, EvidenceBundle
from ephemeralml.wire.encoding import sha256
from ephemeralml.wire.errors import AppraisalError, VerificationError

from ..nitro.forge import Chain, make_chain, make_document, make_payload
from . import service
from .forge import (
    DRIVER_RIM,
    NOW,
    VBIOS_RIM,
    ReportParts,
    answers,
    device,
    driver_manifest,
    endorsements,
    leaf_first,
    make_evidence,
    make_report,
    vbios_manifest,
)
from .test_policy import policy

KEY, DIGEST = b"k" * 32, b"u" * 32


@cache
def chain() -> Chain:
    return make_chain()


@cache
def cpu() -> bytes:
    return make_document(chain(), make_payload(chain(), public_key=KEY, user_data=DIGEST))


def gpus(nonce: bytes) -> bytes:
    return make_evidence((make_report(ReportParts(nonce=nonce)), leaf_first(device())), nonce=nonce)


def travelling() -> tuple[Collateral, ...]:
    files = {f"{DRIVER_RIM}.swidtag": driver_manifest(), f"{VBIOS_RIM}.swidtag": vbios_manifest()}
    files |= {f"{place}.ocsp": data for place, data in enumerate(answers())}
    return tuple(Collateral("nvidia", name, data) for name, data in files.items())


def judge(*companions: bytes, collateral: tuple[Collateral, ...] | None = None) -> VerifiedBundle:
    carried = travelling() if collateral is None else collateral
    bundle = EvidenceBundle("nitro", cpu(), tuple(("nvidia", one) for one in companions), carried)
    again = EvidenceBundle.from_list(bundle.to_list())
    given = Endorsements(
        nitro=NitroEndorsements(chain().roots),
        nvidia=endorsements(rims={}, ocsp=(), nras_issuers=service.endorsements().nras_issuers),
    )
    return verify_bundle(again, given, NOW, KEY, DIGEST)


def wanted(verified: VerifiedBundle, gpu: NvidiaPolicy | None) -> Appraisal:
    registers: dict[str, Any] = {f"pcr{index}": bytes([index + 1]).hex() * 48 for index in (0, 1, 2)}
    nitro = (MeasurementSet(name="image", **registers),)
    trust = TrustPolicy(version="1", platforms=Platforms(nitro=nitro, nvidia=gpu))
    return appraise_bundle(verified, trust, NOW, stated_at=NOW)


def test_gpus_that_answer_the_cpus_evidence_are_of_its_machine() -> None:
    verified = judge(gpus(sha256(cpu())))
    found = wanted(verified, policy(required_with=("nitro",)))
    assert (found.measurement_set, found.evidence_hash) == ("image", sha256(cpu()))
    assert [code for code, _ in found.findings if code.endswith(("NOT_CHECKED", "NOT_COMPARED"))] == []


def test_gpus_of_another_machine_are_refused() -> None:
    with pytest.raises(VerificationError, match="COMPANION_BINDING_FAILED"):
        judge(gpus(sha256(b"another CPU's evidence")))


def test_gpus_alone_are_no_cpu() -> None:
    bundle = EvidenceBundle("nvidia", gpus(sha256(cpu())), (), travelling())
    with pytest.raises(VerificationError, match="KEY_BINDING_FAILED"):
        verify_bundle(bundle, Endorsements(nvidia=endorsements()), NOW, KEY, DIGEST)


def test_a_policy_may_require_gpus() -> None:
    with pytest.raises(AppraisalError, match="COMPANION_MISSING"):
        wanted(judge(), policy(required_with=("nitro",)))
    assert wanted(judge(), policy()).measurement_set == "image"


def test_gpus_that_nobody_asked_for_prove_nothing() -> None:
    found = wanted(judge(gpus(sha256(cpu()))), None)
    assert ("COMPANION_NOT_APPRAISED", "nvidia") in found.findings


def test_what_did_not_travel_was_not_checked() -> None:
    verified = judge(gpus(sha256(cpu())), collateral=())
    with pytest.raises(AppraisalError) as caught:
        wanted(verified, policy())
    assert [code for code, _ in caught.value.findings] == ["MEASUREMENTS_NOT_COMPARED", "OCSP_NOT_CHECKED"]


def test_the_services_answer_travels_with_its_keys() -> None:
    nonce = sha256(cpu()).hex()
    value = service.answer(
        service.token(service.device_claims(eat_nonce=nonce)), overall={"eat_nonce": nonce}
    )
    keys = (Collateral("nvidia", "nras.jwks.json", service.jwks()),)
    verified = judge(service.make_evidence(value), collateral=keys)
    assert wanted(verified, policy(accept=("nras",))).measurement_set == "image"
    # A key set of the host's own, under no pinned certificate, is worth nothing.
    forged = (Collateral("nvidia", "nras.jwks.json", service.jwks(_forged())),)
    with pytest.raises(VerificationError, match="UNKNOWN_ROOT"):
        judge(service.make_evidence(value), collateral=forged)


def _forged() -> dict[str, object]:
    own = service.signer()
    return service.jwk(own, x5c=[own.certificate, device()[0].certificate])
