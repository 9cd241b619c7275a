"""The second opinion: dcap-qvl must read the same quote and reach the same status."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

from ...wire.errors import VerificationError
from .choose import Lists
from .collateral import QeIdentity, TcbInfo
from .parse import TdReport, TdxQuote
from .pck import PckPlatform
from .pem import write_pem_chain
from .tcb import Standings

FIELDS: Final = {
    "tee_tcb_svn": "tee_tcb_svn",
    "mr_seam": "mrseam",
    "mr_signer_seam": "mrsignerseam",
    "seam_attributes": "seam_attributes",
    "td_attributes": "attributes",
    "xfam": "xfam",
    "mr_td": "mrtd",
    "mr_config_id": "mrconfigid",
    "mr_owner": "mrowner",
    "mr_owner_config": "mrownerconfig",
    "report_data": "report_data",
}


def check_second_opinion(
    data: bytes,
    quote: TdxQuote,
    platform: PckPlatform,
    info: TcbInfo,
    qe: QeIdentity,
    lists: Lists,
    standings: Standings,
    now: int,
) -> None:
    """Check that dcap-qvl reads and judges a quote as we do.

    :raises VerificationError: ``PARSERS_DISAGREE``: it does not, or refuses.
    """
    dcap_qvl = _library()
    check_same_fields(data, quote, platform)
    collateral = dcap_qvl.QuoteCollateralV3(
        pck_crl_issuer_chain=write_pem_chain(quote.pck_chain[1:]),
        root_ca_crl=lists.root.der,
        pck_crl=lists.pck.der,
        tcb_info_issuer_chain=write_pem_chain(info.signed.chain),
        tcb_info=info.signed.text.decode(),
        tcb_info_signature=info.signed.signature,
        qe_identity_issuer_chain=write_pem_chain(qe.signed.chain),
        qe_identity=qe.signed.text.decode(),
        qe_identity_signature=qe.signed.signature,
    )
    try:
        report = dcap_qvl.verify_with_root_ca(data, collateral, quote.pck_chain[-1], now)
        same = report.status == standings.status and set(report.advisory_ids) == set(standings.advisory_ids)
    except Exception:  # it states no kinds of its own
        same = False
    if not same:
        raise _disagree("judges it otherwise")


def check_same_fields(data: bytes, quote: TdxQuote, platform: PckPlatform) -> None:
    """Check that dcap-qvl reads every field as we do.

    :raises VerificationError: ``PARSERS_DISAGREE``.
    """
    try:
        theirs = _library().parse_quote(data)
        extension = theirs.pck_extension()
        same = (
            theirs.header.version == quote.version
            and extension is not None
            and bytes(extension.fmspc) == platform.fmspc
            and bytes(extension.pce_id) == platform.pce_id
            and bytes(extension.cpu_svn) == platform.cpu_svn
            and extension.pce_svn == platform.pce_svn
            and _same_report(theirs.report, quote.report)
        )
    except Exception:  # as above
        same = False
    if not same:
        raise _disagree("reads other fields")


def _same_report(theirs: object, ours: TdReport) -> bool:
    pairs = [(name, getattr(ours, mine)) for name, mine in FIELDS.items()]
    pairs += [(f"rt_mr{index}", value) for index, value in enumerate(ours.rtmrs)]
    if ours.mrservicetd is not None:
        pairs += [("tee_tcb_svn2", ours.tee_tcb_svn2), ("mr_service_td", ours.mrservicetd)]
    return hasattr(theirs, "mr_service_td") == (ours.mrservicetd is not None) and all(
        bytes(getattr(theirs, name)) == value for name, value in pairs
    )


def _library() -> Any:
    return import_module("dcap_qvl")


def _disagree(what: str) -> VerificationError:
    return VerificationError("PARSERS_DISAGREE", f"the second verifier of TDX quotes {what}")
