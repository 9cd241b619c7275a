"""Appraisal: genuine evidence held against a policy (RFC 9334, section 8.5)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hmac import compare_digest
from typing import Final

from ..wire.errors import AppraisalError
from .evidence import Measurements, VerifiedEvidence
from .policy import UNCHECKED, MeasurementSet, SecurityMode, TrustPolicy

CLOCK_SKEW_S: Final = 300
Finding = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Appraisal:
    """Evidence that is genuine and wanted.

    :param evidence_hash: SHA-256 of the evidence that was appraised, 32 bytes.
    :param measurement_set: name of the set that matched whole.
    :param security_mode: ``production``, or ``evaluation`` for a simulated TEE or a debug enclave.
    :param findings: what was not checked or is notable, as ``(code, detail)``; no refusals.
    """

    evidence_hash: bytes
    measurement_set: str
    security_mode: SecurityMode
    findings: tuple[Finding, ...] = ()


def appraise(verified: VerifiedEvidence, policy: TrustPolicy, now: int) -> Appraisal:
    """Hold evidence against a policy; every reason for a refusal is collected.

    :param now: Unix seconds, for the evidence's age.
    :raises AppraisalError: the code of the first finding, ``findings`` has all of them:
        ``PLATFORM_NOT_ALLOWED``, ``ROOT_NOT_ALLOWED``, ``DEBUG_NOT_ALLOWED``, ``MEASUREMENT_MISMATCH``,
        ``SECURITY_MODE_NOT_ALLOWED``, ``EVIDENCE_FUTURE`` or ``EVIDENCE_STALE``.
    """
    mode: SecurityMode = "evaluation" if verified.simulated or verified.debug else "production"
    sets = _wanted_sets(verified, policy)
    matched = next((one for one in sets if not _differences(one, verified.measurements)), None)
    refusals = [
        *_platform(verified, policy, sets),
        *_debug(verified, policy),
        *_measurements(sets, matched, verified.measurements),
        *_mode(mode, policy),
        *_age(verified, policy, now),
    ]
    if refusals or matched is None:
        codes = ", ".join(code for code, _ in refusals)
        raise AppraisalError(
            refusals[0][0],
            f"{refusals[0][1]} ({codes})" if len(refusals) > 1 else refusals[0][1],
            findings=tuple(refusals),
        )
    return Appraisal(verified.evidence_hash, matched.name, mode, tuple(_notes(matched, verified)))


def _wanted_sets(verified: VerifiedEvidence, policy: TrustPolicy) -> tuple[MeasurementSet, ...]:
    platforms = policy.platforms
    if verified.simulated:
        return () if platforms.simulated is None else platforms.simulated.measurement_sets
    return platforms.nitro if verified.platform == "nitro" else ()


def _platform(
    verified: VerifiedEvidence, policy: TrustPolicy, sets: tuple[MeasurementSet, ...]
) -> Iterator[Finding]:
    if not sets:
        yield "PLATFORM_NOT_ALLOWED", f"the policy wants nothing of platform {verified.platform!r}"
    simulated = policy.platforms.simulated
    if verified.simulated and simulated is not None:
        wanted = bytes.fromhex(simulated.root_fingerprint)
        if not compare_digest(wanted, verified.root_fingerprint):
            yield "ROOT_NOT_ALLOWED", "the evidence is of another development root"


def _debug(verified: VerifiedEvidence, policy: TrustPolicy) -> Iterator[Finding]:
    if verified.debug and not policy.dangerous_allow_debug:
        yield "DEBUG_NOT_ALLOWED", "the enclave runs in debug mode: its host may read its memory"


def _differences(wanted: MeasurementSet, measured: Measurements) -> list[str]:
    if measured.kind != "nitro-pcr":
        return list(wanted.registers)
    return [
        slot
        for slot, value in wanted.registers.items()
        if value != UNCHECKED and not compare_digest(bytes.fromhex(value), measured.values.get(slot, b""))
    ]


def _measurements(
    sets: tuple[MeasurementSet, ...], matched: MeasurementSet | None, measured: Measurements
) -> Iterator[Finding]:
    if matched is not None:
        return
    if not sets:
        yield "MEASUREMENT_MISMATCH", "the policy names no measurement set for it"
        return
    nearest = min(sets, key=lambda one: len(_differences(one, measured)))
    slots = ", ".join(_differences(nearest, measured))
    yield "MEASUREMENT_MISMATCH", f"no measurement set matches whole; {nearest.name!r} differs in {slots}"


def _mode(mode: SecurityMode, policy: TrustPolicy) -> Iterator[Finding]:
    if mode not in policy.security_modes:
        yield "SECURITY_MODE_NOT_ALLOWED", f"the policy does not accept security mode {mode!r}"


def _age(verified: VerifiedEvidence, policy: TrustPolicy, now: int) -> Iterator[Finding]:
    age = now - verified.issued_at
    if age < -CLOCK_SKEW_S:
        yield "EVIDENCE_FUTURE", f"the evidence was made {-age} s from now"
    if age > policy.max_evidence_age_s:
        yield "EVIDENCE_STALE", f"the evidence is {age} s old, {policy.max_evidence_age_s} s are allowed"


def _notes(matched: MeasurementSet, verified: VerifiedEvidence) -> Iterator[Finding]:
    for slot, value in matched.registers.items():
        if value == UNCHECKED:
            yield "UNCHECKED", slot
    if verified.simulated:
        yield "SIMULATED", "a simulated TEE proves nothing about hardware"
    if verified.debug:
        yield "DEBUG", "the enclave's host may read its memory"
