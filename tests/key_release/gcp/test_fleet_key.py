"""A fleet key in Confidential Space: born in one worker, adopted by another, refused where planted."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ephemeralml.attestation.attest.composite import BundleAttester
from ephemeralml.attestation.attest.confidential_space import ConfidentialSpaceAttester
from ephemeralml.attestation.attest.launcher import Launcher
from ephemeralml.attestation.key_release.birth import make_birth, verify_birth
from ephemeralml.attestation.key_release.gcp import context_bytes, owner_data_key_gcp
from ephemeralml.attestation.policy import Platforms, TrustPolicy
from ephemeralml.attestation.verify import Endorsements
from ephemeralml.wire.errors import AppraisalError, VerificationError
from ephemeralml.wire.private_keys import PrivateKey

from ...attestation.confidential_space.forge import AUDIENCE, NOW, issuer
from ...attestation.confidential_space.launcher import StandInLauncher
from ...attestation.confidential_space.test_appraise import policy
from .conftest import Connect
from .google import KEY, Addresses, Google

CONTEXT = {"purpose": "fleet", "pool": "minilm", "epoch": "3"}
WANTED = TrustPolicy(version="1", platforms=Platforms(confidential_space=policy()))
ENDORSEMENTS = Endorsements(confidential_space=issuer())


def born(tee: StandInLauncher, wrapped: bytes, seed: bytes) -> bytes:
    attester = ConfidentialSpaceAttester(AUDIENCE, launcher=Launcher(tee.path))
    return make_birth(
        pool="minilm",
        epoch=3,
        public_key=PrivateKey.from_seed("x25519", seed).public_key,
        wrapped=wrapped,
        receipt_key=Ed25519PrivateKey.generate(),
        attester=BundleAttester(attester),
        now=NOW,
    )


def test_one_worker_makes_the_key_and_another_adopts_it(connect: Connect, tee: StandInLauncher) -> None:
    key = connect().generate_data_key(CONTEXT)
    birth = born(tee, key.wrapped, key.plaintext)
    certificate = verify_birth(
        birth, pool="minilm", wrapped=key.wrapped, endorsements=ENDORSEMENTS, policy=WANTED, now=NOW + 9
    )
    adopted = PrivateKey.from_seed("x25519", connect().decrypt(key.wrapped, CONTEXT))
    assert adopted.public_key == certificate.public_key


def test_a_key_that_the_owner_planted_has_no_birth(
    connect: Connect, tee: StandInLauncher, google: Google, addresses: Addresses
) -> None:
    """Whoever may encrypt can wrap a seed that they know; the KMS would unwrap it for every worker."""
    planted = owner_data_key_gcp(KEY, CONTEXT, access_token=google.give("owner"), kms_endpoint=addresses.kms)
    assert connect().decrypt(planted.wrapped, CONTEXT) == planted.plaintext
    honest = connect().generate_data_key(CONTEXT)
    birth = born(tee, honest.wrapped, honest.plaintext)
    with pytest.raises(VerificationError, match="BIRTH_WRONG_BLOB"):
        verify_birth(
            birth, pool="minilm", wrapped=planted.wrapped, endorsements=ENDORSEMENTS, policy=WANTED, now=NOW
        )
    tee.says = {"submods/container/image_digest": "sha256:" + "ee" * 32}
    with pytest.raises(AppraisalError, match="MEASUREMENT_MISMATCH"):
        verify_birth(
            born(tee, planted.wrapped, planted.plaintext),
            pool="minilm",
            wrapped=planted.wrapped,
            endorsements=ENDORSEMENTS,
            policy=WANTED,
            now=NOW,
        )


def test_the_specification_shows_the_contexts_bytes() -> None:
    page = Path(__file__).resolve().parents[3] / "spec" / "key-release-gcp.md"
    assert context_bytes({"epoch": "1", "pool": "minilm", "purpose": "fleet"}).hex() in page.read_text(
        "utf-8"
    )
