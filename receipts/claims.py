"""The claims of an AIR v1 receipt, and their one encoding.

A receipt's payload is a closed CWT claims map in deterministic CBOR; spec/air-v1.md
has the table. :class:`Claims` is its meaning in Python, :mod:`.rules` judges each
claim, both when a receipt is issued and when one is verified.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, cast

from ..attestation.evidence import Measurements
from ..wire.encoding import decode, encode
from ..wire.errors import MalformedError
from .rules import (
    CLAIM_RULES,
    EAT_PROFILE,
    MEASUREMENT_TYPE,
    NITRO,
    PROFILE,
    TDX,
    fault_in_closed_map,
    fault_in_profile,
)

KEYS: Final = MappingProxyType({rule.name: rule.key for rule in CLAIM_RULES})


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What an AIR v1 receipt says about one inference.

    :param iss: who operates the worker, 1 to 256 UTF-8 bytes. :param iat: issued at, Unix seconds, not 0.
    :param cti: 16 unique bytes (a UUIDv4). :param eat_nonce: the client's challenge, 8 to 64 bytes.
    :param model_hash: 32 bytes; likewise the other hashes. :param enclave_measurements: 48 bytes a slot.
    :param sequence_number: informational, no evidence against replay. :param execution_time_ms: measured.
    :param memory_peak_mb: measured. :param security_mode: ``production`` or ``evaluation``.
    :param model_hash_scheme: ``sha256-single``, ``sha256-concat`` or ``sha256-manifest``.
    """

    iss: str
    iat: int
    cti: bytes
    model_id: str
    model_version: str
    model_hash: bytes
    request_hash: bytes
    response_hash: bytes
    attestation_doc_hash: bytes
    enclave_measurements: Measurements
    policy_version: str
    sequence_number: int
    execution_time_ms: int
    memory_peak_mb: int
    security_mode: str
    eat_nonce: bytes | None = None
    model_hash_scheme: str | None = None


def claims_map(claims: Claims) -> dict[object, object]:
    """Return the claims map of a receipt, judged by the same rules that a verifier applies.

    :raises MalformedError: the code of the first rule that a claim breaks (spec/air-v1.md).
    """
    measurements = claims.enclave_measurements
    slots: dict[str, object] = {MEASUREMENT_TYPE: measurements.kind, **measurements.values}
    result: dict[object, object] = {EAT_PROFILE: PROFILE}
    for rule in CLAIM_RULES:
        value = slots if rule.name == "enclave_measurements" else getattr(claims, rule.name)
        if value is None and not rule.required:
            continue
        fault = rule.judge(value)
        if fault is not None:
            raise MalformedError(fault[0], f"{rule.name} {fault[1]}")
        result[rule.key] = value
    return result


def encode_claims(claims: Claims) -> bytes:
    """Return the payload of a receipt: deterministic CBOR of the claims map (RFC 8949, section 4.2.1).

    :raises MalformedError: the code of the first rule that a claim breaks.
    """
    return encode(claims_map(claims))


def decode_claims(payload: bytes) -> Claims:
    """Read a receipt's payload, and judge every claim. Says nothing about its signature.

    :raises MalformedError: not deterministic CBOR (``CBOR_…``), or the code of the rule that is broken.
    """
    claims = decode(payload)
    if not isinstance(claims, dict):
        raise MalformedError("PAYLOAD_NOT_MAP", "the payload is not a map")
    fault = fault_in_profile(claims) or fault_in_closed_map(claims)
    if fault is not None:
        raise MalformedError(fault[0], f"the claims map {fault[1]}")
    for rule in CLAIM_RULES:
        fault = rule.fault(claims)
        if fault is not None:
            raise MalformedError(fault[0], f"{rule.name} {fault[1]}")
    return claims_from_map(claims)


def claims_from_map(claims: dict[object, object]) -> Claims:
    """Return the :class:`Claims` of a map that every rule has accepted."""
    fields = {rule.name: claims[rule.key] for rule in CLAIM_RULES if rule.key in claims}
    slots = cast("dict[str, object]", fields["enclave_measurements"])
    values = {name: cast("bytes", value) for name, value in slots.items() if name != MEASUREMENT_TYPE}
    kind = NITRO if slots[MEASUREMENT_TYPE] == NITRO else TDX
    fields["enclave_measurements"] = Measurements(kind, values)
    return Claims(**fields)  # type: ignore[arg-type]
