"""Bundles for tests; every time is counted from NOW."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ephemeralml.attestation.policy import ModelReference, TrustPolicy
from ephemeralml.attestation.policy_bundle import (
    PolicyBundle,
    PolicyStatement,
    canonical_policy,
    make_policy_bundle,
    open_policy_bundle,
)
from ephemeralml.wire.encoding import sha256

NOW: Final = 1_800_000_000
DAY: Final = 86_400
KEY: Final = Ed25519PrivateKey.from_private_bytes(bytes([7]) * 32)
ROOT: Final = KEY.public_key().public_bytes_raw()
OTHER_KEY: Final = Ed25519PrivateKey.from_private_bytes(bytes([8]) * 32)
OTHER_ROOT: Final = OTHER_KEY.public_key().public_bytes_raw()


def policy(version: str = "1") -> TrustPolicy:
    """A policy that another version's is not equal to."""
    return TrustPolicy(version=version, models=(ModelReference(id="m", manifest_hash="ab" * 32),))


def statement(**changes: object) -> PolicyStatement:
    """The first version, issued now, for thirty days."""
    first = PolicyStatement("prod", 1, NOW, NOW, NOW + 30 * DAY, canonical_policy(policy()))
    return replace(first, **changes)  # type: ignore[arg-type]


def first(**changes: object) -> bytes:
    """The first version, signed."""
    return make_policy_bundle(statement(**changes), KEY)


def after(data: bytes, *, key: Ed25519PrivateKey = KEY, **changes: object) -> bytes:
    """The version after a bundle, signed."""
    before = opened(data).statement
    serial = before.serial + 1
    fields: dict[str, object] = {
        "serial": serial,
        "previous": sha256(data),
        "policy": canonical_policy(policy(str(serial))),
        **changes,
    }
    return make_policy_bundle(statement(**fields), key)


def opened(data: bytes) -> PolicyBundle:
    """A bundle of the test's root, whatever its time."""
    return open_policy_bundle(data, ROOT)
