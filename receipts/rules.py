"""One rule per claim of AIR v1: the table of spec/air-v1.md as data.

A rule is a pure function of a decoded value and returns None or a fault, which is
a stable code and a detail that never repeats the value. Issuing and verifying walk
the same table, so that nothing is signed that a verifier would refuse.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

PROFILE: Final = "https://spec.cyntrisec.com/air/v1"
EAT_PROFILE: Final = 265
NITRO: Final[Literal["nitro-pcr"]] = "nitro-pcr"
TDX: Final[Literal["tdx-mrtd-rtmr"]] = "tdx-mrtd-rtmr"
SECURITY_MODES: Final = ("production", "evaluation")
MODEL_HASH_SCHEMES: Final = ("sha256-single", "sha256-concat", "sha256-manifest")
MEASUREMENT_TYPE: Final = "measurement_type"
MEASUREMENT_BYTES: Final = 48

Fault = tuple[str, str] | None
Judge = Callable[[object], Fault]

_REQUIRED_SLOTS: Final = frozenset(("pcr0", "pcr1", "pcr2"))
_MEASUREMENT_KEYS: Final = _REQUIRED_SLOTS | {"pcr3", "pcr4", "pcr8", MEASUREMENT_TYPE}
_WRONG_TEXT: Final = ("WRONG_TYPE", "is not a text")
_WRONG_BYTES: Final = ("WRONG_TYPE", "is not a byte string")


@dataclass(frozen=True, slots=True)
class Rule:
    """One claim: its key in the map, its name, the check that reports it, and how to judge a value."""

    key: int
    name: str
    check: str
    judge: Judge
    required: bool = True

    def fault(self, claims: dict[object, object]) -> Fault:
        """Judge the claim inside its map; an absent optional claim is no fault."""
        if self.key in claims:
            return self.judge(claims[self.key])
        return ("MISSING_CLAIM", "is missing") if self.required else None


def _text(maximum: int) -> Judge:
    def judge(value: object) -> Fault:
        if not isinstance(value, str):
            return _WRONG_TEXT
        size = len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))
        return None if 1 <= size <= maximum else ("TEXT_LENGTH", f"has not 1 to {maximum} UTF-8 bytes")

    return judge


def _uint(value: object) -> Fault:
    # bool is an int in Python and another type in CBOR.
    if type(value) is not int or not 0 <= value < 1 << 64:
        return ("WRONG_TYPE", "is not an unsigned integer")
    return None


def _time(value: object) -> Fault:
    return _uint(value) or (("ZERO_IAT", "is 0") if value == 0 else None)


def _digest(value: object) -> Fault:
    if not isinstance(value, bytes):
        return _WRONG_BYTES
    return None if len(value) == 32 else ("BAD_HASH_LENGTH", "has not 32 bytes")


def _model_hash(value: object) -> Fault:
    return _digest(value) or (("ZERO_MODEL_HASH", "is all zero") if value == bytes(32) else None)


def _cti(value: object) -> Fault:
    if not isinstance(value, bytes):
        return _WRONG_BYTES
    if len(value) != 16:
        return ("BAD_CTI_LENGTH", "has not 16 bytes")
    return ("ZERO_CTI", "is all zero") if value == bytes(16) else None


def _nonce(value: object) -> Fault:
    if not isinstance(value, bytes):
        return _WRONG_BYTES
    return None if 8 <= len(value) <= 64 else ("BAD_NONCE_LENGTH", "has not 8 to 64 bytes")


def _word(words: tuple[str, ...], code: str) -> Judge:
    def judge(value: object) -> Fault:
        if not isinstance(value, str):
            return _WRONG_TEXT
        return None if value in words else (code, "is none of the words that AIR v1 knows")

    return judge


def _measurements(value: object) -> Fault:
    if not isinstance(value, dict):
        return ("WRONG_TYPE", "is not a map")
    kind = value.get(MEASUREMENT_TYPE)
    if MEASUREMENT_TYPE not in value:
        return ("MISSING_CLAIM", "lacks measurement_type")
    if not isinstance(kind, str):
        return ("WRONG_TYPE", "has a measurement_type that is not a text")
    if kind not in (NITRO, TDX):
        return ("UNKNOWN_MTYPE", "has an unknown measurement_type")
    return _slots(value, kind)


def _slots(value: dict[object, object], kind: str) -> Fault:
    if not value.keys() <= _MEASUREMENT_KEYS:
        return ("UNKNOWN_MEASUREMENT", "has a key that AIR v1 does not know")
    if kind == TDX and "pcr8" in value:
        return ("PCR8_FORBIDDEN", "has pcr8, which TDX does not have")
    if not value.keys() >= _REQUIRED_SLOTS:
        return ("MISSING_CLAIM", "lacks one of pcr0, pcr1 and pcr2")
    measured = [one for slot, one in value.items() if slot != MEASUREMENT_TYPE]
    if any(not isinstance(one, bytes) for one in measured):
        return ("WRONG_TYPE", "has a slot that is not a byte string")
    if any(len(one) != MEASUREMENT_BYTES for one in measured if isinstance(one, bytes)):
        return ("BAD_MEASUREMENT_LENGTH", f"has a slot that has not {MEASUREMENT_BYTES} bytes")
    return None


# In the order of the encoded map.
CLAIM_RULES: Final = (
    Rule(1, "iss", "ISS", _text(256)),
    Rule(6, "iat", "IAT", _time),
    Rule(7, "cti", "CTI", _cti),
    Rule(10, "eat_nonce", "NONCE_FORM", _nonce, required=False),
    Rule(-65537, "model_id", "MODEL_ID", _text(256)),
    Rule(-65538, "model_version", "MODEL_VERSION", _text(128)),
    Rule(-65539, "model_hash", "MHASH_PRESENT", _model_hash),
    Rule(-65540, "request_hash", "REQUEST_HASH", _digest),
    Rule(-65541, "response_hash", "RESPONSE_HASH", _digest),
    Rule(-65542, "attestation_doc_hash", "ATTESTATION_DOC_HASH", _digest),
    Rule(-65543, "enclave_measurements", "MEAS", _measurements),
    Rule(-65544, "policy_version", "POLICY_VERSION", _text(256)),
    Rule(-65545, "sequence_number", "SEQUENCE", _uint),
    Rule(-65546, "execution_time_ms", "EXECUTION_TIME", _uint),
    Rule(-65547, "memory_peak_mb", "MEMORY_PEAK", _uint),
    Rule(-65548, "security_mode", "MODE_FORM", _word(SECURITY_MODES, "UNKNOWN_SECURITY_MODE")),
    Rule(
        -65549,
        "model_hash_scheme",
        "MHASH_SCHEME",
        _word(MODEL_HASH_SCHEMES, "UNKNOWN_MODEL_HASH_SCHEME"),
        required=False,
    ),
)
CLAIM_KEYS: Final = frozenset(rule.key for rule in CLAIM_RULES) | {EAT_PROFILE}


_JUDGES: Final = {rule.key: rule.judge for rule in CLAIM_RULES}
_REQUIRED: Final = frozenset(rule.key for rule in CLAIM_RULES if rule.required)


def first_fault(claims: dict[object, object]) -> Fault:
    """Return any fault of any claim, or None: the quick way to know that there is none."""
    if not claims.keys() >= _REQUIRED:
        return ("MISSING_CLAIM", "is missing")
    for key, judge in _JUDGES.items():
        if key in claims:
            fault = judge(claims[key])
            if fault is not None:
                return fault
    return None


def fault_in_profile(claims: dict[object, object]) -> Fault:
    """Judge ``eat_profile``, which decides whether this is AIR v1 at all."""
    return None if claims.get(EAT_PROFILE) == PROFILE else ("WRONG_PROFILE", "is not of the AIR v1 profile")


def fault_in_closed_map(claims: dict[object, object]) -> Fault:
    """Judge the keys: integers, and none that AIR v1 does not name."""
    unknown = claims.keys() - CLAIM_KEYS
    if not unknown:
        return None
    if any(not isinstance(key, int) for key in unknown):
        return ("BAD_CLAIM_KEY", "has a key that is not an integer")
    return ("UNKNOWN_CLAIM", "has a claim that AIR v1 does not know")
