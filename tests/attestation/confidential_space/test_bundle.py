"""Tokens as evidence of a worker: alone in a bundle, and as the companion of a CPU's."""

from __future__ import annotations

from pathlib import Path

import pytest

from ephemeralml.attestation.attest.composite import BundleAttester
from ephemeralml.attestation.attest.confidential_space import ConfidentialSpaceAttester
from ephemeralml.attestation.attest.launcher import Launcher
from ephemeralml.attestation.bundle import appraise_bundle, verify_bundle
from ephemeralml.attestation.policy import Platforms, TrustPolicy
from ephemeralml.attestation.simulated import DevelopmentRoot, SimulatedAttester, development_pcrs
from ephemeralml.attestation.simulated.endorsements import SimulatedEndorsements
from ephemeralml.attestation.verify import Endorsements
from ephemeralml.wire.bundle import Collateral, EvidenceBundle
from ephemeralml.wire.errors import AppraisalError, Error

from .forge import AUDIENCE, DIGEST, NOW, RECEIPT_KEY, issuer, jwks, oidc, pki
from .launcher import launcher
from .test_appraise import policy

ENDORSEMENTS = Endorsements(confidential_space=issuer())
WANTED = TrustPolicy(version="1", platforms=Platforms(confidential_space=policy()))


def made(tmp_path: Path) -> EvidenceBundle:
    with launcher(tmp_path / "s") as running:
        attester = ConfidentialSpaceAttester(AUDIENCE, launcher=Launcher(running.path))
        return BundleAttester(attester).bundle(public_key=RECEIPT_KEY, user_data=DIGEST)


def test_a_worker_without_other_evidence(tmp_path: Path) -> None:
    bundle = EvidenceBundle.from_list(made(tmp_path).to_list())
    # Verified years later, at its own time.
    verified = verify_bundle(bundle, ENDORSEMENTS, NOW + 10**8, RECEIPT_KEY, DIGEST)
    appraisal = appraise_bundle(verified, WANTED, NOW + 5)
    assert (appraisal.measurement_set, appraisal.security_mode) == ("worker-1", "production")
    assert "REVOCATION_NOT_CHECKED" in [code for code, _ in appraisal.findings]


@pytest.mark.parametrize(
    ("key", "digest", "code"),
    [
        (b"x" * 32, DIGEST, "KEY_BINDING_FAILED"),
        (RECEIPT_KEY, b"x" * 32, "ANNOUNCEMENT_BINDING_FAILED"),
        (DIGEST, RECEIPT_KEY, "KEY_BINDING_FAILED"),
    ],
)
def test_it_vouches_for_one_key_and_one_announcement(key: bytes, digest: bytes, code: str) -> None:
    with pytest.raises(Error, match=code):
        verify_bundle(EvidenceBundle("confidential-space", pki()), ENDORSEMENTS, NOW, key, digest)


def test_keys_that_travel_along_are_not_believed() -> None:
    """A JWKS is signed by nobody: whoever carries the bundle could have written it."""
    own = Collateral("confidential-space", "jwks.json", jwks())
    bundle = EvidenceBundle("confidential-space", oidc(), collateral=(own,))
    with pytest.raises(Error, match="NO_COLLATERAL"):
        verify_bundle(bundle, Endorsements(), NOW, RECEIPT_KEY, DIGEST)


def companion(token: bytes) -> tuple[EvidenceBundle, Endorsements]:
    root = DevelopmentRoot.create(now=NOW - 60)
    cpu = SimulatedAttester(root, development_pcrs("image"), now=lambda: float(NOW))
    evidence = cpu.attest(public_key=RECEIPT_KEY, user_data=DIGEST)
    bundle = EvidenceBundle("simulated", evidence, (("confidential-space", token),))
    simulated = SimulatedEndorsements((root.fingerprint,))
    return bundle, Endorsements(simulated=simulated, confidential_space=issuer())


def test_a_token_accompanies_a_cpu() -> None:
    bundle, endorsements = companion(pki())
    verified = verify_bundle(bundle, endorsements, NOW, RECEIPT_KEY, DIGEST)
    assert [one.platform for one in verified.companions] == ["confidential-space"]


@pytest.mark.parametrize("late", [1, 30, 600])
def test_a_launcher_makes_its_token_a_little_later(late: int) -> None:
    token = pki(changes={"iat": NOW + late, "nbf": NOW + late, "exp": NOW + late + 3600})
    bundle, endorsements = companion(token)
    assert verify_bundle(bundle, endorsements, NOW, RECEIPT_KEY, DIGEST).companions


@pytest.mark.parametrize("off", [-7200, 601])
def test_a_token_of_another_time_is_no_companion(off: int) -> None:
    token = pki(changes={"iat": NOW + off, "nbf": NOW + off, "exp": NOW + off + 3600})
    bundle, endorsements = companion(token)
    with pytest.raises(Error, match="COMPANION_TIME"):
        verify_bundle(bundle, endorsements, NOW, RECEIPT_KEY, DIGEST)


@pytest.mark.parametrize("changes", [{"eat_nonce": ...}, {"eat_nonce": DIGEST.hex()}])
def test_a_token_of_another_worker_is_no_companion(changes: dict[str, object]) -> None:
    bundle, endorsements = companion(pki(changes=changes))
    with pytest.raises(Error, match="COMPANION_BINDING_FAILED"):
        verify_bundle(bundle, endorsements, NOW, RECEIPT_KEY, DIGEST)


def test_an_unwanted_image_is_named() -> None:
    bundle = EvidenceBundle(
        "confidential-space", pki(changes={"submods/container/image_digest": "sha256:" + "ee" * 32})
    )
    verified = verify_bundle(bundle, ENDORSEMENTS, NOW, RECEIPT_KEY, DIGEST)
    with pytest.raises(AppraisalError, match="MEASUREMENT_MISMATCH"):
        appraise_bundle(verified, WANTED, NOW)
