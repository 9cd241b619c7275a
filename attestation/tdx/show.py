"""Says in words what a TDX quote claims, unverified."""

from __future__ import annotations

from .parse import parse
from .pck import read_platform


def show(data: bytes) -> tuple[tuple[str, str], ...]:
    """Return labels and words for what a quote says; nothing of it has been checked.

    :raises MalformedError: as :func:`.parse.parse` and :func:`.pck.read_platform`.
    :raises VerificationError: ``CERTIFICATE_PROFILE``.
    """
    quote = parse(data)
    report, platform = quote.report, read_platform(quote.pck_chain[0])
    lines = [
        ("quote version", str(quote.version)),
        ("FMSPC", platform.fmspc.hex()),
        ("PCE", f"SVN {platform.pce_svn}, id {platform.pce_id.hex()}"),
        ("TEE TCB SVNs", report.tee_tcb_svn.hex()),
        ("debug", "yes: its host may read its memory" if report.attributes[0] else "no"),
        ("TD attributes", report.attributes.hex()),
        ("XFAM", report.xfam.hex()),
        ("MRSEAM", report.mrseam.hex()),
        ("MRTD", report.mrtd.hex()),
        *((f"RTMR{index}", value.hex()) for index, value in enumerate(report.rtmrs)),
        ("MRCONFIGID", report.mrconfigid.hex()),
        ("MROWNER", report.mrowner.hex()),
        ("MROWNERCONFIG", report.mrownerconfig.hex()),
        ("REPORTDATA", report.report_data.hex()),
        ("SVN of the quoting enclave", str(quote.qe_report.isv_svn)),
    ]
    return tuple(lines)
