"""``verify evidence``: genuine or not, wanted or not, and everything that was found on the way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from ...attestation.bundle import VerifiedBundle, appraise_bundle
from ...attestation.confidential_space import ConfidentialSpaceDetails
from ...attestation.evidence import Finding, VerifiedEvidence
from ...attestation.nvidia import NvidiaDetails
from ...attestation.nvidia.vendor import evidence_from
from ...attestation.policy import TrustPolicy
from ...attestation.show import guess_platform, printable
from ...attestation.simulated.endorsements import is_under
from ...attestation.verify import stated_time, verify_evidence
from ...wire.errors import AppraisalError, EndorsementsError, Error, MalformedError
from ...wire.exit_codes import NOT_JUDGED, OK, UNSOUND
from .common import ERR, OUT, PolicyRootOption
from .judging import (
    AtOption,
    CollateralFolder,
    Misuse,
    PolicyFile,
    endorsements_of,
    octets_of,
    policy_of,
    read_file,
    time_of,
    verify_errors,
)

PlatformOption = Annotated[
    str | None,
    typer.Option(help="nitro, tdx, confidential-space, nvidia or simulated; guessed where left out."),
]


@dataclass(frozen=True)
class _Bound:
    """What the caller says that the evidence must vouch for; None where nothing is said."""

    nonce: bytes | None
    public_key: bytes | None

    def check(self, found: VerifiedEvidence) -> None:
        if self.nonce is not None and not found.details.binds_nonce(self.nonce):
            raise AppraisalError("NONCE_MISMATCH", "the evidence does not answer this challenge")
        if self.public_key is not None and not found.details.binds_key(self.public_key):
            raise AppraisalError("KEY_BINDING_FAILED", "the evidence does not vouch for this key")


def evidence(
    file: Annotated[Path, typer.Argument(help="Evidence: a Nitro document, TDX quote, token or GPU report.")],
    platform: PlatformOption = None,
    collateral: CollateralFolder = None,
    policy: PolicyFile = None,
    policy_root: PolicyRootOption = None,
    nonce: Annotated[str | None, typer.Option(help="Challenge that it must answer, hexadecimal.")] = None,
    public_key: Annotated[
        str | None, typer.Option("--public-key", help="Key that it must vouch for, hexadecimal.")
    ] = None,
    at: AtOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Say whether evidence is genuine and, under a policy, wanted.

    Exit 0 genuine and wanted; without a policy: genuine, not of a debug or simulated TEE, nothing left
    unchecked and nothing known against its TCB. 1 misuse, 2 unsound, 3 could not judge.
    """
    with verify_errors():
        now = time_of(at)
        trusted = None if policy is None else policy_of(policy, policy_root, now)
        wanted = _Bound(octets_of(nonce, "--nonce"), octets_of(public_key, "--public-key"))
        data = read_file(file)
        report: dict[str, object] = {"genuine": None, "at": now}
        try:
            code = _judge(data, platform, trusted, collateral, now, wanted, report)
        except Misuse:
            raise
        except Error as error:
            if isinstance(error, AppraisalError):
                report |= {"wanted": False}
            elif not isinstance(error, EndorsementsError):
                report |= {"genuine": False}
            report |= {"code": error.code, "detail": error.message}
            _print(report, as_json)
            _hint(error, report)
            raise
    _print(report, as_json)
    if code != OK:
        raise typer.Exit(code)


def _judge(
    data: bytes,
    platform: str | None,
    trusted: TrustPolicy | None,
    collateral: Path | None,
    now: int,
    wanted: _Bound,
    report: dict[str, object],
) -> int:
    named = platform or guessed_platform(data, trusted)
    report |= {"platform": named, "platform_guessed": platform is None}
    if named == "nvidia":
        data = evidence_from(data)  # the vendor's own forms too
    endorsements = endorsements_of(named, trusted, collateral)
    report["stated_at"] = stated_time(named, data)
    found = verify_evidence(named, data, endorsements, now)
    report |= {"genuine": True} | _facts(found)
    wanted.check(found)
    if trusted is None:
        report |= {"wanted": None, "findings": _findings(found.findings)}
        return _without_policy(found)
    try:
        appraisal = appraise_bundle(VerifiedBundle(found), trusted, now)
    except AppraisalError as error:
        report |= {"wanted": False, "findings": _findings((*error.findings, *found.findings))}
        return UNSOUND
    report |= {
        "wanted": True,
        "measurement_set": appraisal.measurement_set,
        "security_mode": appraisal.security_mode,
        "findings": _findings(appraisal.findings),
    }
    return OK


def guessed_platform(data: bytes, trusted: TrustPolicy | None) -> str:
    """Return which platform's verifier to ask; ``simulated`` only under the root that the policy names.

    :raises MalformedError: ``UNKNOWN_FORMAT``.
    """
    guessed = guess_platform(data)
    if guessed is None:
        raise MalformedError("UNKNOWN_FORMAT", "the bytes look like no platform's evidence; name --platform")
    allowed = None if trusted is None else trusted.platforms.simulated
    if guessed == "nitro" and allowed is not None and is_under(data, bytes.fromhex(allowed.root_fingerprint)):
        return "simulated"
    return guessed


def _facts(found: VerifiedEvidence) -> dict[str, object]:
    measured = found.measurements
    return {
        "evidence_sha256": found.evidence_hash.hex(),
        "issued_at": found.issued_at,
        "valid": [found.not_before, found.not_after],
        "root": found.root_fingerprint.hex(),
        "debug": found.debug,
        "simulated": found.simulated,
        "status": _status(found),
        "measurements": None
        if measured is None
        else {"kind": measured.kind} | {slot: value.hex() for slot, value in measured.values.items()},
    }


def _status(found: VerifiedEvidence) -> str:
    """The vendor's word on the platform's level of patches, on the platforms that have one (TDX)."""
    return str(getattr(found.details, "tcb_status", "none given"))


def _without_policy(found: VerifiedEvidence) -> int:
    """Closed by default: known badness is unsound, whatever else was noted is not judged."""
    codes = [code for code, _ in found.findings]
    tcb = any(code.startswith("TCB_") for code in codes)
    if found.debug or found.simulated or tcb or _is_known_bad(found):
        return UNSOUND
    return NOT_JUDGED if codes else OK


def _is_known_bad(found: VerifiedEvidence) -> bool:
    """Say whether it has what any policy would refuse, and is no finding of a verifier's."""
    match found.details:
        case NvidiaDetails(way=way, result=result, devices=devices):
            bad = any(device.differing or device.objections for device in devices)
            return bad or (way == "nras" and result is not True)
        case ConfidentialSpaceDetails(secure_boot=secure, software_name=name, hardware_model=model):
            return not secure or name != "CONFIDENTIAL_SPACE" or model == "GCP_SHIELDED_VM"
        case _:
            return False


def _findings(found: tuple[Finding, ...]) -> list[dict[str, str]]:
    return [{"code": code, "detail": printable(detail)} for code, detail in dict.fromkeys(found)]


def _print(report: dict[str, object], as_json: bool) -> None:
    if as_json:
        print(json.dumps(report))
        return
    for name, words in _text(report):
        OUT.print(f"{name:<18} {printable(words)}", soft_wrap=True, markup=False)


def _text(report: dict[str, object]) -> Iterator[tuple[str, str]]:
    for name, value in report.items():
        match name, value:
            case "genuine" | "wanted", bool() | None:
                yield name, _VERDICTS[name, value]
            case "platform", _:
                yield name, f"{value} (guessed from the bytes)" if report["platform_guessed"] else str(value)
            case "at" | "stated_at" | "issued_at", int() as seconds:
                yield name.replace("_", " "), when(seconds)
            case "valid", [int() as first, int() as last]:
                yield name, f"{when(first)} to {when(last)}"
            case "measurements", dict() as slots:
                names = _TDX_REGISTERS if slots["kind"] == "tdx-mrtd-rtmr" else {}
                yield from ((names.get(slot) or str(slot), str(digest)) for slot, digest in slots.items())
            case "findings", list() as findings:
                yield from (("finding", f"{one['code']}: {one['detail']}") for one in findings)
            case "debug" | "simulated", True:
                yield name, "YES"
            case _ if value is not None and value is not False and name != "platform_guessed":
                yield name.replace("_", " "), str(value)


# AIR v1 has one set of slot names for all platforms.
_TDX_REGISTERS: Final[dict[object, str]] = {
    "pcr0": "pcr0 (MRTD)",
    **{f"pcr{index + 1}": f"pcr{index + 1} (RTMR{index})" for index in range(4)},
}
_VERDICTS: Final = {
    ("genuine", True): "yes",
    ("genuine", False): "NO",
    ("genuine", None): "could not be judged",
    ("wanted", True): "yes",
    ("wanted", False): "NO",
    ("wanted", None): "not asked: no --policy",
}


def when(seconds: int) -> str:
    """Return a time in words; numbers beyond the calendar stay numbers."""
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):
        return str(seconds)


def _hint(error: Error, report: dict[str, object]) -> None:
    stated = report.get("stated_at")
    if error.code in _EXPIRED and stated is not None:
        ERR.print(f"archived evidence is judged at its own time: --at {stated}", soft_wrap=True)
    if error.code in _TO_FETCH:
        ERR.print(
            "to fetch it: ephemeralml attest collateral FILE --out DIR; then --collateral DIR", soft_wrap=True
        )


_EXPIRED: Final = ("CERTIFICATE_EXPIRED", "TOKEN_EXPIRED")
_TO_FETCH: Final = ("NO_COLLATERAL", "COLLATERAL_EXPIRED", "COLLATERAL_MISMATCH")
