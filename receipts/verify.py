"""Verifies AIR v1 receipts in four layers, and joins the evidence behind the key as a fifth.

1. **Parse**: size, tag 18, four parts, headers exactly ``{1: -8, 3: 61}`` and ``{}``, a deterministic
   claims map, the profile.
2. **Crypto**: the Ed25519 signature, strictly (S < L, canonical points, none of small order).
3. **Claims**: every claim by its rule; the map is closed.
4. **Policy**: what the verifier expects; last, that the ``cti`` was never seen.
5. **Provenance** (not AIR's): the evidence is genuine, wanted, the one the receipt names, and bound to
   the key.

Each layer must pass before the next runs. Every check is reported, also those that
nobody asked for and those that no longer ran. Nothing here reads a clock or a
network, and no input raises.
"""

from __future__ import annotations

from typing import Final

from ..attestation.appraise import Appraisal
from ..attestation.evidence import VerifiedEvidence
from ..wire.cose import verify_ed25519
from ..wire.encoding import sha256
from ..wire.errors import VerificationError
from .checks import (
    CLAIMS,
    CRYPTO,
    LAYERS,
    POLICY,
    PROVENANCE,
    Check,
    Level,
    Verification,
    all_passed,
    any_failed,
    failed,
    judged,
    passed,
    rest,
)
from .claims import Claims, claims_from_map
from .issue import signed_bytes
from .parse import Parsed, parse_receipt
from .policy import ReceiptPolicy, check_policy, check_replay
from .provenance import check_provenance
from .rules import CLAIM_RULES, fault_in_closed_map, first_fault

__all__ = ["Check", "Level", "ReceiptPolicy", "Verification", "assess", "verify_receipt"]

_DEFAULT_POLICY: Final = ReceiptPolicy()


def verify_receipt(data: bytes, public_key: bytes, policy: ReceiptPolicy | None, now: int) -> Verification:
    """Verify a receipt without the evidence behind its key; at best it reaches the level ``bound``.

    :param data: the receipt. :param public_key: raw Ed25519 key, 32 bytes. :param now: Unix seconds.
    """
    return assess(data, public_key, policy, now)


def assess(
    receipt: bytes,
    public_key: bytes,
    policy: ReceiptPolicy | None,
    now: int,
    *,
    verified_evidence: VerifiedEvidence | None = None,
    appraisal: Appraisal | None = None,
) -> Verification:
    """Verify a receipt together with the evidence behind its key.

    ``provenance`` is reached only when the evidence was verified and appraised, is the document that the
    receipt names, has the receipt's measurements and is bound to ``public_key``.

    :param public_key: raw Ed25519 key, 32 bytes. :param policy: None for the default, which expects
        nothing but a production receipt that is not from the future. :param now: Unix seconds.
    """
    parsed = parse_receipt(receipt)
    receipt_hash = sha256(receipt) if isinstance(receipt, bytes) else bytes(32)
    checks = parsed.checks
    if parsed.claims is None:
        return _stopped(checks, CRYPTO, receipt_hash)
    checks.append(_signature(parsed, public_key))
    if checks[-1].status == "failed":
        return _stopped(checks, CLAIMS, receipt_hash)
    of_claims = check_claims(parsed.claims)
    checks += of_claims
    if any_failed(of_claims):
        return _stopped(checks, POLICY, receipt_hash)
    claims = claims_from_map(parsed.claims)
    provenance = check_provenance(claims, public_key, verified_evidence, appraisal)
    checks += _judge(claims, policy or _DEFAULT_POLICY, now, provenance)
    return Verification(tuple(checks), claims, receipt_hash)


def check_claims(claims: dict[object, object]) -> list[Check]:
    """Report every check of layer 3."""
    closed = fault_in_closed_map(claims)
    if closed is None and first_fault(claims) is None:
        return all_passed(CLAIMS)
    faults = [rule.fault(claims) for rule in CLAIM_RULES]
    return [
        judged(CLAIMS, "CLOSED", closed),
        *(judged(CLAIMS, rule.check, fault) for rule, fault in zip(CLAIM_RULES, faults, strict=True)),
    ]


def _signature(parsed: Parsed, public_key: object) -> Check:
    if not isinstance(public_key, bytes):
        return failed(CRYPTO, "SIG", "SIG_FAILED", "a public key is a byte string")
    try:
        verify_ed25519(public_key, signed_bytes(parsed.payload), parsed.signature)
    except VerificationError as error:
        return failed(CRYPTO, "SIG", error.code, error.message)
    return passed(CRYPTO, "SIG")


def _judge(claims: Claims, policy: ReceiptPolicy, now: int, provenance: list[Check]) -> list[Check]:
    """Run layer 4 before what layer 5 found. A ``cti`` is remembered only when all else has passed, so
    that a refused receipt can be judged again with other evidence."""
    of_policy = check_policy(claims, policy, now)
    if any_failed(of_policy):
        return [*rest(POLICY, of_policy), *rest(PROVENANCE, [])]
    if any_failed(provenance):
        return [*rest(POLICY, of_policy), *provenance]
    replay = check_replay(claims, policy, now)
    return [*of_policy, replay, *(rest(PROVENANCE, []) if replay.status == "failed" else provenance)]


def _stopped(checks: list[Check], next_layer: int, receipt_hash: bytes) -> Verification:
    for layer in LAYERS:
        if layer >= next_layer:
            checks += rest(layer, [])
    return Verification(tuple(checks), None, receipt_hash)
