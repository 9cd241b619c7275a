"""Fuzz target: tokens, verified at the time that they state, under Google's root, its keys and ours."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from ephemeralml.attestation.confidential_space import (
    GOOGLE_CONFIDENTIAL_SPACE_ROOT,
    ConfidentialSpaceEndorsements,
    read_jwks,
)
from ephemeralml.attestation.confidential_space.parse import parse
from ephemeralml.attestation.confidential_space.show import show
from ephemeralml.attestation.confidential_space.verify import verify
from ephemeralml.wire.errors import MalformedError

from ...fuzz.seeds import recorded
from .forge import issuer, oidc, pki


@cache
def seeds() -> list[bytes]:
    """Recorded tokens where the corpus is here, and three of our own."""
    made = [oidc(), pki(), oidc({"eat_nonce": "a challenge", "submods/nvidia_gpu": ...})]
    return [*recorded("gcp-cs/*.jwt"), *made]


@cache
def endorsements() -> ConfidentialSpaceEndorsements:
    """The keys and roots that the seeds are signed under."""
    keys = issuer().keys
    for jwks in recorded("gcp-cs/*jwks*.json"):
        keys = (*keys, *read_jwks(jwks))
    return replace(issuer(), roots=(GOOGLE_CONFIDENTIAL_SPACE_ROOT, *issuer().roots), keys=keys)


@cache
def _signed() -> frozenset[bytes]:
    inputs = set()
    for seed in seeds():
        try:
            inputs.add(parse(seed).jwt.signing_input)
        except MalformedError:  # the tampered one
            continue
    return frozenset(inputs)


def target(data: bytes) -> None:
    """Verify; what passes must say what one of the seeds says, because nobody else could sign it."""
    token = parse(data)
    show(data)
    verify(data, endorsements(), token.issued_at)
    assert token.jwt.signing_input in _signed(), "a forged token verifies"
