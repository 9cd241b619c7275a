"""Holds a verified TDX quote against a policy; every reason for a refusal is collected."""

from __future__ import annotations

from collections.abc import Iterator
from hmac import compare_digest

from ..closed import UNCHECKED
from ..evidence import Finding, VerifiedEvidence
from ..judgement import Judgement
from .details import TdxDetails
from .parse import TdReport
from .policy import TdxMeasurementSet, TdxPolicy


def appraise_tdx(verified: VerifiedEvidence, policy: TdxPolicy, now: int) -> Judgement:
    """Match measurements with one set, and platform, module and collateral with what is accepted.

    :param now: Unix seconds, for the collateral's age.
    :return: refusals ``MEASUREMENT_MISMATCH``, ``MRSEAM_NOT_ALLOWED``, ``XFAM_NOT_ALLOWED``,
        ``ATTRIBUTES_NOT_ALLOWED``, ``TCB_STATUS_NOT_ALLOWED``, ``ADVISORY_NOT_ALLOWED``,
        ``EVALUATION_NUMBER``, ``COLLATERAL_STALE``; notes ``UNCHECKED`` for what the policy leaves open.
    :raises VerificationError: ``WRONG_PLATFORM``.
    """
    details = TdxDetails.of(verified)
    matched = next((one for one in policy.measurement_sets if not _differences(one, details.report)), None)
    refusals = (
        *_sets(details, policy, matched),
        *_allowed(details.report, policy),
        *_tcb(details, policy),
        *_collateral(details, policy, now),
    )
    return Judgement(None if matched is None else matched.name, refusals, tuple(_notes(policy, matched)))


def _differences(wanted: TdxMeasurementSet, report: TdReport) -> list[str]:
    found = {"mrtd": report.mrtd} | {f"rtmr{index}": value for index, value in enumerate(report.rtmrs)}
    return [
        name
        for name, value in wanted.registers.items()
        if value != UNCHECKED and not compare_digest(bytes.fromhex(value), found[name])
    ]


def _sets(details: TdxDetails, policy: TdxPolicy, matched: TdxMeasurementSet | None) -> Iterator[Finding]:
    if matched is not None:
        return
    if not policy.measurement_sets:
        yield "MEASUREMENT_MISMATCH", "the policy names no measurement set for it"
        return
    nearest = min(policy.measurement_sets, key=lambda one: len(_differences(one, details.report)))
    names = ", ".join(_differences(nearest, details.report))
    yield "MEASUREMENT_MISMATCH", f"no measurement set matches whole; {nearest.name!r} differs in {names}"


def _allowed(report: TdReport, policy: TdxPolicy) -> Iterator[Finding]:
    if policy.mrseams != UNCHECKED and report.mrseam.hex() not in policy.mrseams:
        yield "MRSEAM_NOT_ALLOWED", "the policy does not name the TDX module (MRSEAM)"
    if policy.xfams != UNCHECKED and report.xfam.hex() not in policy.xfams:
        yield "XFAM_NOT_ALLOWED", f"the policy does not name XFAM {report.xfam.hex()}"
    if policy.attributes != UNCHECKED and report.attributes.hex() not in policy.attributes:
        yield "ATTRIBUTES_NOT_ALLOWED", f"the policy does not name TD attributes {report.attributes.hex()}"


def _tcb(details: TdxDetails, policy: TdxPolicy) -> Iterator[Finding]:
    if details.tcb_status not in policy.accepted_tcb_statuses:
        yield "TCB_STATUS_NOT_ALLOWED", f"the policy does not accept TCB status {details.tcb_status!r}"
    if policy.allowed_advisory_ids == UNCHECKED:
        return
    for advisory in details.advisory_ids:
        if advisory not in policy.allowed_advisory_ids:
            yield "ADVISORY_NOT_ALLOWED", f"{advisory} applies, and the policy does not allow it"


def _collateral(details: TdxDetails, policy: TdxPolicy, now: int) -> Iterator[Finding]:
    least, most = policy.min_evaluation_number, policy.max_collateral_age_s
    if least is not None and details.evaluation_number < least:
        yield (
            "EVALUATION_NUMBER",
            f"the collateral is of evaluation {details.evaluation_number}, {least} is wanted",
        )
    age = now - details.collateral_issued_at
    if most is not None and age > most:
        yield "COLLATERAL_STALE", f"the collateral is {age} s old, {most} s are allowed"


def _notes(policy: TdxPolicy, matched: TdxMeasurementSet | None) -> Iterator[Finding]:
    if matched is not None:
        for name, value in matched.registers.items():
            if value == UNCHECKED:
                yield "UNCHECKED", name
    for name in ("mrseams", "xfams", "attributes", "allowed_advisory_ids"):
        if getattr(policy, name) == UNCHECKED:
            yield "UNCHECKED", name
