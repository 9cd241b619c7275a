"""The verifier's own verdict on a receipt as a signed EAT Attestation Result (spec/ear.md).

Claims and tiers follow EAR (draft-ietf-rats-ear, profile of 2023) and its trust
vector AR4SI (draft-ietf-rats-ar4si). A relying party that has no verifier of
receipts trusts the key that signed the result instead. The result claims no more
than was checked: without evidence the tier is ``none``, and only a receipt that
reached provenance, was bound and is of a production TEE is ``affirming``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..wire.cose import decode_sign1, sig_structure, sign1, verify_ed25519
from ..wire.encoding import decode, encode
from ..wire.errors import ConfigurationError, MalformedError, VerificationError
from ..wire.fields import Fields
from .checks import LAYERS, Level, Verification

Tier = Literal["none", "affirming", "warning", "contraindicated"]

PROFILE: Final = "tag:github.com,2023:veraison/ear"
CONTENT_TYPE: Final = "application/eat+cwt"
DEVELOPER: Final = "ephemeralml"
SUBMODULE: Final = "ai-inference-receipt"
EXTENSION: Final = "ephemeralml.receipt"
MAX_EAR_BYTES: Final = 16_384
DEFAULT_SKEW_S: Final = 300

TIERS: Final[Mapping[Tier, int]] = {"none": 0, "affirming": 2, "warning": 32, "contraindicated": 96}
VECTOR: Final = (
    "instance-identity",
    "configuration",
    "executables",
    "file-system",
    "hardware",
    "runtime-opaque",
    "storage-opaque",
    "sourced-data",
)
_IAT, _NONCE, _PROFILE, _SUBMODS, _VERIFIER = 6, 10, 265, 266, 1004
_STATUS, _TRUST_VECTOR, _POLICY_ID = 1000, 1001, 1003
_HEADER: Final[dict[int, object]] = {1: -8, 3: CONTENT_TYPE}
_PROTECTED: Final = encode(_HEADER)
_LEVELS: Final[tuple[Level, ...]] = get_args(Level)
# AR4SI: 99 is "cryptographic validation failed" in every claim.
_CRYPTO_FAILED: Final = 99
_GENUINE: Final[Mapping[str, int]] = {"instance-identity": 2, "executables": 2, "hardware": 2}
_SIMULATED: Final[Mapping[str, int]] = {"instance-identity": 2, "configuration": 32, "executables": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestationResult:
    """What a verifier says about one receipt.

    :param iat: when it was judged, Unix seconds. :param receipt_hash: SHA-256 of the receipt, 32 bytes.
    :param vector: AR4SI trust claims by name, -128 to 127. :param codes: of the checks that failed.
    :param skipped: the checks that nobody asked for, as ``layer/CHECK``.
    :param build: the verifier's version. :param policy_id: names the policy that it judged under.
    :param nonce: the relying party's challenge, 8 to 64 bytes.
    """

    tier: Tier
    iat: int
    receipt_hash: bytes
    level: Level
    bound: bool
    build: str
    codes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    vector: Mapping[str, int] = field(default_factory=dict)
    policy_id: str | None = None
    nonce: bytes | None = None


def result_of(
    verification: Verification,
    now: int,
    *,
    build: str,
    policy_id: str | None = None,
    nonce: bytes | None = None,
) -> AttestationResult:
    """Put a verification into the tiers and claims of EAR.

    :param now: when it was judged, Unix seconds.
    """
    tier, vector = _judge(verification)
    return AttestationResult(
        tier=tier,
        iat=now,
        receipt_hash=verification.receipt_hash,
        level=verification.level,
        bound=verification.bound,
        build=build,
        codes=verification.codes,
        skipped=tuple(f"{LAYERS[check.layer]}/{check.name}" for check in verification.skipped),
        vector=vector,
        policy_id=policy_id,
        nonce=nonce,
    )


def issue_ear(result: AttestationResult, key: Ed25519PrivateKey) -> bytes:
    """Return the result as a tagged COSE_Sign1 whose payload is a CWT (``application/eat+cwt``).

    :param key: the verifier's own key, never a receipt key.
    :raises ConfigurationError: ``BAD_EAR`` when a value is out of its bounds; nothing is signed then.
    """
    claims = _claims(result)
    try:
        _read(claims)
        return sign1(encode(claims), key, protected=_HEADER)
    except MalformedError as error:
        raise ConfigurationError("BAD_EAR", error.message) from None


def verify_ear(
    data: bytes,
    public_key: bytes,
    now: int,
    *,
    max_age_s: int | None = None,
    expected_nonce: bytes | None = None,
) -> AttestationResult:
    """Verify a result that a trusted verifier signed, and return it; its ``tier`` is still to be judged.

    :param public_key: the verifier's raw Ed25519 key, 32 bytes. :param now: Unix seconds.
    :param max_age_s: refuse older results, seconds. :param expected_nonce: the challenge we gave.
    :raises MalformedError: not such a result. :raises VerificationError: ``SIG_FAILED``,
        ``BAD_SIG_LENGTH``, ``TIMESTAMP_FUTURE``, ``TIMESTAMP_STALE`` or ``NONCE_MISMATCH``.
    """
    message = decode_sign1(data, max_bytes=MAX_EAR_BYTES)
    if message.protected_bytes != _PROTECTED:
        raise MalformedError("BAD_PROTECTED_HEADER", "not the protected header of an attestation result")
    if message.unprotected:
        raise MalformedError("NON_EMPTY_UNPROTECTED", "the unprotected header is not empty")
    signed = sig_structure(message.protected_bytes, message.payload)
    verify_ed25519(public_key, signed, message.signature)
    result = _read(decode(message.payload, max_bytes=MAX_EAR_BYTES))
    if result.iat > now + DEFAULT_SKEW_S:
        raise VerificationError("TIMESTAMP_FUTURE", "the result was signed after the time of verification")
    if max_age_s is not None and result.iat < now - max_age_s:
        raise VerificationError("TIMESTAMP_STALE", f"the result was signed more than {max_age_s} s ago")
    if expected_nonce is not None and result.nonce != expected_nonce:
        raise VerificationError("NONCE_MISMATCH", "the result answers another challenge or none")
    return result


def _judge(verification: Verification) -> tuple[Tier, Mapping[str, int]]:
    if not verification.passed:
        forged = any(
            check.status == "failed" and check.name in ("SIG", "KEY_BINDING") for check in verification.checks
        )
        return "contraindicated", {"instance-identity": _CRYPTO_FAILED} if forged else {}
    claims = verification.claims
    if verification.level != "provenance" or claims is None:
        return "none", {}
    if claims.security_mode != "production":
        return "warning", _SIMULATED
    return ("affirming" if verification.bound else "warning"), _GENUINE


def _claims(result: AttestationResult) -> dict[object, object]:
    module: dict[object, object] = {
        _STATUS: TIERS[result.tier],
        EXTENSION: {
            1: result.receipt_hash,
            2: result.level,
            3: result.bound,
            4: list(result.codes),
            5: list(result.skipped),
        },
    }
    if result.vector:
        module[_TRUST_VECTOR] = {VECTOR.index(name): value for name, value in result.vector.items()}
    if result.policy_id is not None:
        module[_POLICY_ID] = result.policy_id
    claims: dict[object, object] = {
        _IAT: result.iat,
        _PROFILE: PROFILE,
        _SUBMODS: {SUBMODULE: module},
        _VERIFIER: {0: DEVELOPER, 1: result.build},
    }
    if result.nonce is not None:
        claims[_NONCE] = result.nonce
    return claims


def _read(value: object) -> AttestationResult:
    claims = Fields(value, "attestation result", (_IAT, _NONCE, _PROFILE, _SUBMODS, _VERIFIER))
    if claims.text(_PROFILE, 1, 256) != PROFILE:
        raise MalformedError("WRONG_PROFILE", "is not of the EAR profile")
    verifier = Fields(claims.required(_VERIFIER, dict), "verifier's name", (0, 1))
    if verifier.text(0, 1, 256) != DEVELOPER:
        raise MalformedError("WRONG_PROFILE", "is a result of another kind of verifier")
    modules = Fields(claims.required(_SUBMODS, dict), "submodules", (SUBMODULE,))
    keys = (_STATUS, _TRUST_VECTOR, _POLICY_ID, EXTENSION)
    module = Fields(modules.required(SUBMODULE, dict), "appraisal", keys)
    found = Fields(module.required(EXTENSION, dict), "receipt's result", range(1, 6))
    result = AttestationResult(
        tier=_tier(module.uint(_STATUS)),
        iat=claims.uint(_IAT, minimum=1),
        receipt_hash=found.octets(1, 32),
        level=_level(found.text(2, 1, 16)),
        bound=found.required(3, bool),
        build=verifier.text(1, 1, 64),
        codes=_texts(found.items(4, 0, 64)),
        skipped=_texts(found.items(5, 0, 64)),
        vector=_vector(module.required(_TRUST_VECTOR, dict)) if _TRUST_VECTOR in module else {},
        policy_id=module.text(_POLICY_ID, 1, 256) if _POLICY_ID in module else None,
        nonce=claims.octets(_NONCE, 8, 64) if _NONCE in claims else None,
    )
    _consistent(result)
    return result


def _consistent(result: AttestationResult) -> None:
    """Refuse a result whose tier says more than its own details."""
    unsound = result.level == "none"
    affirmed = result.level == "provenance" and result.bound and bool(result.vector)
    wrong = (
        unsound != (result.tier == "contraindicated")
        or unsound != bool(result.codes)
        or (result.tier == "affirming" and not affirmed)
        or (result.tier == "affirming" and any(not 2 <= value <= 31 for value in result.vector.values()))
        or (result.tier == "warning") > (result.level == "provenance")
    )
    if wrong:
        raise MalformedError("EAR_CONTRADICTION", "tier and level of the result contradict each other")


def _tier(number: int) -> Tier:
    for tier, value in TIERS.items():
        if value == number:
            return tier
    raise MalformedError("UNKNOWN_TIER", "the status is none of the four tiers")


def _level(name: str) -> Level:
    for level in _LEVELS:
        if level == name:
            return level
    raise MalformedError("UNKNOWN_LEVEL", "the level is none of the four")


def _texts(values: list[object]) -> tuple[str, ...]:
    texts = tuple(value for value in values if isinstance(value, str) and 1 <= len(value) <= 64)
    if len(texts) != len(values):
        raise MalformedError("WRONG_TYPE", "a list of texts holds something else")
    return texts


def _vector(value: dict[object, object]) -> dict[str, int]:
    vector = Fields(value, "trust vector", range(len(VECTOR)))
    result = {name: vector.required(key, int) for key, name in enumerate(VECTOR) if key in vector}
    if not result or any(not -128 <= one <= 127 for one in result.values()):
        raise MalformedError("OUT_OF_BOUNDS", "a trust vector is empty or out of bounds")
    return result
