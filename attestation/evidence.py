"""What attestation is about: measurements, and evidence that a verifier found genuine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field
from typing import Final, Literal

MeasurementKind = Literal["nitro-pcr", "tdx-mrtd-rtmr"]

# The registers that AIR v1 carries and policies name (AIR-V1, enclave_measurements).
NITRO_REGISTERS: Final = (0, 1, 2, 3, 4, 8)
VERIFIER_TOKEN: Final = object()
"""Held by the platform verifiers of this package, so that nobody makes evidence "verified" by accident."""


@dataclass(frozen=True, slots=True)
class Measurements:
    """What a TEE measured of itself, in the slots that receipts and policies name.

    :param kind: ``"nitro-pcr"`` or ``"tdx-mrtd-rtmr"`` (AIR v1, ``measurement_type``).
    :param values: by slot, ``pcr0`` to ``pcr4`` and ``pcr8``; SHA-384, 48 bytes each.
    """

    kind: MeasurementKind
    values: Mapping[str, bytes]


def nitro_measurements(pcrs: Mapping[int, bytes]) -> Measurements:
    """Return the named slots of a full PCR table.

    :param pcrs: by index, 0 to 31. Registers that have no slot are left out.
    """
    return Measurements(
        "nitro-pcr", {f"pcr{index}": pcrs[index] for index in NITRO_REGISTERS if index in pcrs}
    )


@dataclass(frozen=True, slots=True)
class VerifiedEvidence:
    """Evidence whose signature, chain and validity were checked; whether it is *wanted* is appraisal's.

    Only a platform verifier can make one.

    :param platform: ``"nitro"`` or ``"simulated"``.
    :param evidence_hash: SHA-256 of the evidence, 32 bytes (AIR v1, ``attestation_doc_hash``).
    :param registers: the full PCR table by index, 32, 48 or 64 bytes each.
    :param issued_at: when the document was made, Unix seconds.
    :param not_before: :param not_after: when every certificate of the chain is valid, Unix seconds.
    :param root_fingerprint: SHA-256 of the trust anchor, 32 bytes.
    :param debug: made by a TEE whose memory its host may read.
    :param simulated: made by software under a development root; proves nothing about hardware.
    """

    platform: str
    evidence_hash: bytes
    measurements: Measurements
    registers: Mapping[int, bytes] = field(repr=False)
    public_key: bytes | None = field(repr=False)
    user_data: bytes | None = field(repr=False)
    nonce: bytes | None = field(repr=False)
    module_id: str
    issued_at: int
    not_before: int
    not_after: int
    root_fingerprint: bytes
    debug: bool
    simulated: bool
    token: InitVar[object]

    def __post_init__(self, token: object) -> None:
        if token is not VERIFIER_TOKEN:
            raise TypeError("VerifiedEvidence comes from a platform's verifier only")
