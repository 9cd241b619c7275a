"""Appraisal: genuine evidence held against a policy (RFC 9334, section 8.5)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ..wire.errors import AppraisalError
from .confidential_space.appraise import appraise_confidential_space
from .evidence import Finding, VerifiedEvidence
from .judgement import Judgement
from .nitro.appraise import appraise_nitro
from .nvidia.appraise import appraise_nvidia
from .policy import SecurityMode, TrustPolicy
from .simulated.appraise import appraise_simulated
from .tdx.appraise import appraise_tdx

CLOCK_SKEW_S: Final = 300


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


def appraise(
    verified: VerifiedEvidence, policy: TrustPolicy, now: int, *, stated_at: int | None = None
) -> Appraisal:
    """Hold evidence against a policy; every reason for a refusal is collected.

    :param now: Unix seconds, for the evidence's age.
    :param stated_at: when it was made, Unix seconds, for evidence that has no time of its own; from
        something that the evidence vouches for. Without it the age is a finding, ``AGE_NOT_CHECKED``.
    :raises AppraisalError: the code of the first finding, ``findings`` has all of them:
        ``PLATFORM_NOT_ALLOWED``, ``DEBUG_NOT_ALLOWED``, the platform's own (``ROOT_NOT_ALLOWED``,
        ``MEASUREMENT_MISMATCH`` and others), ``SECURITY_MODE_NOT_ALLOWED``, ``EVIDENCE_FUTURE`` or
        ``EVIDENCE_STALE``.
    """
    mode: SecurityMode = "evaluation" if verified.simulated or verified.debug else "production"
    issued_at = stated_at if verified.issued_at is None else verified.issued_at
    found = _judgement(verified, policy, now)
    refusals = [
        *_platform(verified, found),
        *_debug(verified, policy),
        *(found or _UNWANTED).refusals,
        *_mode(mode, policy),
        *_age(issued_at, policy, now),
    ]
    if refusals or found is None or found.matched is None:
        codes = ", ".join(code for code, _ in refusals)
        raise AppraisalError(
            refusals[0][0],
            f"{refusals[0][1]} ({codes})" if len(refusals) > 1 else refusals[0][1],
            findings=tuple(refusals),
        )
    notes = (*verified.findings, *found.notes, *_notes(verified, issued_at))
    return Appraisal(verified.evidence_hash, found.matched, mode, notes)


_UNWANTED: Final = Judgement(None, (("MEASUREMENT_MISMATCH", "the policy names no measurement set for it"),))


def _judgement(verified: VerifiedEvidence, policy: TrustPolicy, now: int) -> Judgement | None:
    """Return what the platform's own rules say; None when the policy wants nothing of the platform."""
    wanted = policy.platforms
    match verified.platform:
        case "nitro" if wanted.nitro:
            return appraise_nitro(verified, wanted.nitro)
        case "simulated" if wanted.simulated is not None:
            return appraise_simulated(verified, wanted.simulated)
        case "confidential-space" if wanted.confidential_space is not None:
            return appraise_confidential_space(verified, wanted.confidential_space)
        case "nvidia" if wanted.nvidia is not None:
            return appraise_nvidia(verified, wanted.nvidia)
        case "tdx" if wanted.tdx is not None:
            return appraise_tdx(verified, wanted.tdx, now)
        case _:
            return None


def _platform(verified: VerifiedEvidence, found: Judgement | None) -> Iterator[Finding]:
    if found is None:
        yield "PLATFORM_NOT_ALLOWED", f"the policy wants nothing of platform {verified.platform!r}"


def _debug(verified: VerifiedEvidence, policy: TrustPolicy) -> Iterator[Finding]:
    if verified.debug and not policy.dangerous_allow_debug:
        yield "DEBUG_NOT_ALLOWED", "the TEE runs in debug mode: its host may read its memory"


def _mode(mode: SecurityMode, policy: TrustPolicy) -> Iterator[Finding]:
    if mode not in policy.security_modes:
        yield "SECURITY_MODE_NOT_ALLOWED", f"the policy does not accept security mode {mode!r}"


def _age(issued_at: int | None, policy: TrustPolicy, now: int) -> Iterator[Finding]:
    if issued_at is None:
        return
    age = now - issued_at
    if age < -CLOCK_SKEW_S:
        yield "EVIDENCE_FUTURE", f"the evidence was made {-age} s from now"
    if age > policy.max_evidence_age_s:
        yield "EVIDENCE_STALE", f"the evidence is {age} s old, {policy.max_evidence_age_s} s are allowed"


def _notes(verified: VerifiedEvidence, issued_at: int | None) -> Iterator[Finding]:
    if verified.debug:
        yield "DEBUG", "the TEE's host may read its memory"
    if issued_at is None:
        yield "AGE_NOT_CHECKED", "the evidence has no time of its own"
