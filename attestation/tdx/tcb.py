"""Finds where a platform, its TDX module and its quoting enclave stand, and what that is together.

Rules: Intel, "PCS API v4", "Get TDX TCB Info" (determining the TCB status), and the convergence of
statuses in Intel's quote verification library.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ...wire.errors import VerificationError
from .collateral import ModuleIdentity, QeIdentity, Standing, SvnLevel, TcbInfo, TcbLevel, TcbStatus
from .parse import QeReport, TdReport
from .pck import PckPlatform


@dataclass(frozen=True, slots=True)
class Standings:
    """Where everything stands. :param module: None for TDX modules 1.0, which the platform's level covers."""

    platform: Standing
    module: Standing | None
    qe: Standing
    status: TcbStatus
    advisory_ids: tuple[str, ...]


def evaluate(
    report: TdReport, qe_report: QeReport, pck: PckPlatform, info: TcbInfo, qe: QeIdentity
) -> Standings:
    """Find the levels that are reached, and the status that follows from all of them.

    :raises VerificationError: ``TDX_MODULE_UNKNOWN``, ``TDX_MODULE_MISMATCH``, ``QE_MISMATCH``,
        ``NO_TCB_LEVEL`` or ``TCB_REVOKED``.
    """
    check_qe(qe_report, qe)
    module = _module(report, info)
    platform = _platform_level(report, pck, info).standing
    module_standing = None if module is None else _reached(module.levels, report.tee_tcb_svn[0])
    qe_standing = _reached(qe.levels, qe_report.isv_svn)
    parts = [one for one in (module_standing, qe_standing) if one is not None]
    status = platform.status
    for part in parts:
        status = converge(status, part.status)
    if status == "Revoked":
        raise VerificationError(
            "TCB_REVOKED", "the platform's, its TDX module's or its enclave's TCB is revoked"
        )
    ids = sorted({name for one in (platform, *parts) for name in one.advisory_ids})
    return Standings(platform, module_standing, qe_standing, status, tuple(ids))


def converge(platform: TcbStatus, part: TcbStatus) -> TcbStatus:
    """Return the status of a platform with a part of its own status."""
    if "Revoked" in (platform, part):
        return "Revoked"
    if part == "UpToDate":
        return platform
    if part != "OutOfDate":
        # Intel gives no other status to a module or an enclave; one that appears must not be overlooked.
        raise VerificationError("NO_TCB_LEVEL", "a TDX module or enclave has a status that is for platforms")
    if platform in (
        "ConfigurationNeeded",
        "ConfigurationAndSWHardeningNeeded",
        "OutOfDateConfigurationNeeded",
    ):
        return "OutOfDateConfigurationNeeded"
    return "OutOfDate"


def check_qe(report: QeReport, identity: QeIdentity) -> None:
    """Check that a report is of the quoting enclave that Intel names.

    :raises VerificationError: ``QE_MISMATCH``.
    """
    same = (
        report.mrsigner == identity.mrsigner
        and report.isv_prod_id == identity.isv_prod_id
        and _masked(report.miscselect, identity.miscselect_mask) == identity.miscselect
        and _masked(report.attributes, identity.attributes_mask) == identity.attributes
    )
    if not same:
        raise VerificationError("QE_MISMATCH", "the quoting enclave is not the one that Intel names")


def _module(report: TdReport, info: TcbInfo) -> ModuleIdentity | None:
    """Return the identity of a TDX module 1.5 or newer, whose version is the second octet of its SVNs."""
    version = report.tee_tcb_svn[1]
    if version == 0:
        _check_module(report, info.module)
        return None
    wanted = f"TDX_{version:02X}"
    found = next((one for one in info.modules if one.id.upper() == wanted), None)
    if found is None:
        raise VerificationError("TDX_MODULE_UNKNOWN", "Intel names no TDX module of the quote's version")
    _check_module(report, found)
    return found


def _check_module(report: TdReport, identity: ModuleIdentity) -> None:
    same = (
        report.mrsignerseam == identity.mrsigner
        and _masked(report.seam_attributes, identity.mask) == identity.attributes
    )
    if not same:
        raise VerificationError("TDX_MODULE_MISMATCH", "the TDX module is not one that Intel names")


def _platform_level(report: TdReport, pck: PckPlatform, info: TcbInfo) -> TcbLevel:
    # From 1.5 on the first two TDX components are the module's own SVN and version, judged apart.
    first = 2 if report.tee_tcb_svn[1] > 0 else 0
    for level in info.levels:
        if (
            _reaches(pck.components, level.sgx)
            and pck.pce_svn >= level.pce_svn
            and _reaches(report.tee_tcb_svn[first:], level.tdx[first:])
        ):
            return level
    raise _no_level()


def _reaches(found: Iterable[int], wanted: Iterable[int]) -> bool:
    return all(one >= least for one, least in zip(found, wanted, strict=True))


def _reached(levels: tuple[SvnLevel, ...], svn: int) -> Standing:
    """Return the standing of the first level that is reached; Intel lists the highest first."""
    for level in levels:
        if svn >= level.isv_svn:
            return level.standing
    raise _no_level()


def _masked(value: bytes, mask: bytes) -> bytes:
    return bytes(one & bits for one, bits in zip(value, mask, strict=True))


def _no_level() -> VerificationError:
    return VerificationError(
        "NO_TCB_LEVEL", "the platform, its module or its enclave reaches no level that Intel names"
    )
