"""What a verifier wants of a receipt, and layer 4 of AIR v1, which holds a receipt against it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from ..wire.errors import ConfigurationError, EndorsementsError
from .checks import POLICY, Check, failed, judged, passed, rest, skipped
from .claims import Claims
from .replay import ReplayStore
from .rules import NITRO, SECURITY_MODES, TDX, Fault

DEFAULT_SKEW_S: Final = 300
_HASH_FIELDS: Final = (
    "expected_model_hash",
    "expected_request_hash",
    "expected_response_hash",
    "expected_attestation_doc_hash",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptPolicy:
    """What is expected; None means that nobody asks, and the check is reported as skipped.

    A receipt from the future is always refused, and so is every security mode that is not named.

    :param max_age_s: refuse older receipts, in seconds. :param skew_s: tolerated clock difference, seconds.
    :param expected_nonce: 8 to 64 bytes. :param expected_model_hash: 32 bytes; likewise the other hashes.
    :param expected_platform: ``nitro-pcr`` or ``tdx-mrtd-rtmr``. :param security_modes: those accepted;
        ``evaluation`` must be named. :param replay_store: accepts each ``cti`` once.
    :raises ConfigurationError: ``BAD_RECEIPT_POLICY`` when a value can match no receipt.
    """

    max_age_s: int | None = None
    skew_s: int = DEFAULT_SKEW_S
    expected_nonce: bytes | None = None
    expected_model_hash: bytes | None = None
    expected_model_id: str | None = None
    expected_request_hash: bytes | None = None
    expected_response_hash: bytes | None = None
    expected_attestation_doc_hash: bytes | None = None
    expected_platform: str | None = None
    security_modes: tuple[str, ...] = ("production",)
    replay_store: ReplayStore | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for name in _HASH_FIELDS:
            value = getattr(self, name)
            _require(value is None or (isinstance(value, bytes) and len(value) == 32), f"{name} has 32 bytes")
        nonce = self.expected_nonce
        _require(
            nonce is None or (isinstance(nonce, bytes) and 8 <= len(nonce) <= 64),
            "expected_nonce has 8 to 64 bytes",
        )
        _require(self.expected_platform in (None, NITRO, TDX), f"expected_platform is {NITRO} or {TDX}")
        _require(self.max_age_s is None or self.max_age_s >= 0, "max_age_s is not negative")
        _require(self.skew_s >= 0, "skew_s is not negative")
        _require(
            bool(self.security_modes) and set(self.security_modes) <= set(SECURITY_MODES),
            "security_modes names production, evaluation or both",
        )


def _require(condition: bool, rule: str) -> None:
    if not condition:
        raise ConfigurationError("BAD_RECEIPT_POLICY", rule)


def check_policy(claims: Claims, policy: ReceiptPolicy, now: object) -> list[Check]:
    """Report every check of layer 4 but REPLAY.

    :param now: Unix seconds; anything but a positive integer fails with ``CLOCK_ERROR``.
    """
    expected = (
        ("NONCE", policy.expected_nonce, claims.eat_nonce, "NONCE_MISMATCH"),
        ("MHASH", policy.expected_model_hash, claims.model_hash, "MODEL_HASH_MISMATCH"),
        ("MODEL_ID", policy.expected_model_id, claims.model_id, "MODEL_ID_MISMATCH"),
        ("REQUEST", policy.expected_request_hash, claims.request_hash, "REQUEST_HASH_MISMATCH"),
        ("RESPONSE", policy.expected_response_hash, claims.response_hash, "RESPONSE_HASH_MISMATCH"),
        (
            "ATTESTATION_DOC",
            policy.expected_attestation_doc_hash,
            claims.attestation_doc_hash,
            "ATTESTATION_DOC_HASH_MISMATCH",
        ),
        ("PLATFORM", policy.expected_platform, claims.enclave_measurements.kind, "PLATFORM_MISMATCH"),
    )
    return [
        *_time(claims.iat, policy, now),
        *(_equal(name, wanted, found, code) for name, wanted, found, code in expected),
        judged(POLICY, "SECURITY_MODE", _mode(claims.security_mode, policy.security_modes)),
    ]


def check_replay(claims: Claims, policy: ReceiptPolicy, now: int) -> Check:
    """Report REPLAY, and remember the receipt; run it once everything else has passed."""
    if policy.replay_store is None:
        return skipped(POLICY, "REPLAY", "no store of seen receipts was given")
    expires = None if policy.max_age_s is None else claims.iat + policy.max_age_s
    try:
        new = policy.replay_store.add(claims.cti, now=now, expires=expires)
    except EndorsementsError as error:
        return failed(POLICY, "REPLAY", "REPLAY_STORE_UNAVAILABLE", error.message)
    return judged(
        POLICY, "REPLAY", None if new else ("REPLAY_CTI", "a receipt with this cti was seen before")
    )


def _time(iat: int, policy: ReceiptPolicy, now: object) -> list[Check]:
    if type(now) is not int or now <= 0:
        return [
            failed(POLICY, "FUTURE", "CLOCK_ERROR", "the time of verification is no time"),
            rest(POLICY, [passed(POLICY, "FUTURE")])[1],
        ]
    future: Fault = None
    if iat > now + policy.skew_s:
        future = ("TIMESTAMP_FUTURE", f"issued more than {policy.skew_s} s after the time of verification")
    checks = [judged(POLICY, "FUTURE", future)]
    if policy.max_age_s is None:
        return [*checks, skipped(POLICY, "FRESH", "no maximum age was asked for")]
    stale = ("TIMESTAMP_STALE", f"issued more than {policy.max_age_s} s ago")
    return [*checks, judged(POLICY, "FRESH", stale if iat < now - policy.max_age_s else None)]


def _equal(name: str, wanted: bytes | str | None, found: bytes | str | None, code: str) -> Check:
    if wanted is None:
        return skipped(POLICY, name, "nothing was expected")
    if found is None:
        return failed(POLICY, name, "NONCE_MISSING", "the receipt has no nonce")
    return judged(POLICY, name, None if wanted == found else (code, "the receipt names another one"))


def _mode(mode: str, accepted: tuple[str, ...]) -> Fault:
    if mode in accepted:
        return None
    if mode == "evaluation":
        return ("EVALUATION_MODE_REJECTED", "made by a simulated or debuggable TEE")
    return ("SECURITY_MODE_MISMATCH", "the security mode is not among those accepted")
