"""Verifies TDX quotes: genuine, at a given time, under Intel's pinned root. No clock, no network."""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicNumbers

from ...wire.encoding import sha256
from ...wire.errors import VerificationError
from ..evidence import VERIFIER_TOKEN, Finding, VerifiedEvidence
from .certificates import check_chain, check_root, read_certificate, signed_by
from .choose import Lists, check_signed, choose_lists, choose_qe_identity, choose_tcb_info
from .collateral import QeIdentity, TcbInfo
from .details import TdxDetails, tdx_measurements
from .endorsements import TdxEndorsements
from .parse import TdReport, TdxQuote, parse
from .pck import read_platform
from .second import check_same_fields, check_second_opinion
from .tcb import Standings, evaluate

# Intel, "SGX PCK Certificate and CRL Profile Specification", section 1.3.
_PCK: Final = "Intel SGX PCK Certificate"
_PCK_CAS: Final = ("Intel SGX PCK Platform CA", "Intel SGX PCK Processor CA")
# Intel, "TDX Module Base Architecture Specification", TD attributes: SEPT_VE_DISABLE must be set, for else
# the host can inject exceptions; PKS and KL must be understood before a domain that uses them is trusted.
_SEPT_VE_DISABLE: Final = 1 << 28
_ATTRIBUTES_UNDERSTOOD: Final = 0xFF | _SEPT_VE_DISABLE | 1 << 63


def verify(data: bytes, endorsements: TdxEndorsements, now: int) -> VerifiedEvidence:
    """Verify a quote with its collateral.

    1. the quote, and what its PCK certificate says of the platform, are well formed;
    2. the PCK chain ends at a pinned root, and is valid at ``now``;
    3. neither the PCK certificate nor its CA is on the signed, current revocation lists;
    4. the PCK key signed the quoting enclave's report;
    5. that report vouches for the attestation key;
    6. the attestation key signed header and body;
    7. TCB info and enclave identity are for this platform, current, and signed by Intel's TCB signer;
    8. quoting enclave, TDX module and platform are what they name, and reach levels that are not revoked;
    9. the domain has attributes that are understood;
    10. a second verifier reads the same and comes to the same status.

    A debug domain is genuine, ``debug`` says so; the second verifier refuses to judge it, a finding says so.

    :param data: zeros may follow the quote. :param now: Unix seconds.
    :raises MalformedError: as :func:`.parse.parse`, ``BAD_PCK_EXTENSION``, ``BAD_CERTIFICATE``, ``BAD_CRL``.
    :raises EndorsementsError: ``NO_ROOTS``, ``NO_COLLATERAL``, ``COLLATERAL_EXPIRED``,
        ``COLLATERAL_NOT_YET_VALID``, ``COLLATERAL_MISMATCH``.
    :raises VerificationError: ``UNKNOWN_ROOT``, as :func:`.certificates.check_chain`, ``NOT_A_PCK``,
        ``CRL_SIG_FAILED``, ``CERTIFICATE_REVOKED``, ``QE_SIG_FAILED``, ``KEY_NOT_BOUND``, ``SIG_FAILED``,
        ``COLLATERAL_SIGNER``, ``COLLATERAL_SIG_FAILED``, as :func:`.tcb.evaluate`, ``BAD_TD_ATTRIBUTES``,
        ``SERVICE_TD`` or ``PARSERS_DISAGREE``.
    """
    quote = parse(data)  # 1
    root = check_root(quote.pck_chain[-1], endorsements.roots)  # 2
    check_chain(quote.pck_chain, now)
    _check_names(quote)
    platform = read_platform(quote.pck_chain[0])  # 1
    lists = choose_lists(endorsements, quote.pck_chain[1], quote.pck_chain[2], now)  # 3
    _check_not_revoked(quote, lists)
    _check_quote(quote)  # 4, 5, 6
    info = choose_tcb_info(endorsements, platform, now)  # 7
    identity = choose_qe_identity(endorsements, now)
    for signed in (info.signed, identity.signed):
        check_signed(signed, root, lists.root, now)
    standings = evaluate(quote.report, quote.qe_report, platform, info, identity)  # 8
    _check_attributes(quote.report)  # 9
    if quote.report.attributes[0]:  # 10
        check_same_fields(data, quote, platform)
    else:
        check_second_opinion(data, quote, platform, info, identity, lists, standings, now)
    return _evidence(data, quote, root, lists, info, identity, standings, platform.fmspc)


def _check_names(quote: TdxQuote) -> None:
    pck, ca = (read_certificate(der).common_name for der in quote.pck_chain[:2])
    if pck != _PCK or ca not in _PCK_CAS:
        raise VerificationError(
            "NOT_A_PCK", "the quote's certificate is not for provisioning attestation keys"
        )


def _check_not_revoked(quote: TdxQuote, lists: Lists) -> None:
    pck, ca = (read_certificate(der).serial for der in quote.pck_chain[:2])
    if pck in lists.pck.serials or ca in lists.root.serials:
        raise VerificationError("CERTIFICATE_REVOKED", "a certificate of the quote's chain is revoked")


def _check_quote(quote: TdxQuote) -> None:
    pck = read_certificate(quote.pck_chain[0])
    if not signed_by(pck.public_key, quote.qe_signature, quote.qe_report.raw):
        raise VerificationError(
            "QE_SIG_FAILED", "the signature of the quoting enclave's report does not verify"
        )
    bound = sha256(quote.attestation_key + quote.qe_auth_data) + bytes(32)
    if quote.qe_report.report_data != bound:
        raise VerificationError("KEY_NOT_BOUND", "the quoting enclave does not vouch for the attestation key")
    x, y = (int.from_bytes(half, "big") for half in (quote.attestation_key[:32], quote.attestation_key[32:]))
    try:
        key = EllipticCurvePublicNumbers(x, y, SECP256R1()).public_key()
    except ValueError:
        raise VerificationError("BAD_KEY", "the attestation key is no point of P-256") from None
    if not signed_by(key, quote.signature, quote.signed):
        raise VerificationError("SIG_FAILED", "the signature of the quote does not verify")


def _check_attributes(report: TdReport) -> None:
    attributes = int.from_bytes(report.attributes, "little")
    if attributes & ~_ATTRIBUTES_UNDERSTOOD or not attributes & _SEPT_VE_DISABLE:
        raise VerificationError("BAD_TD_ATTRIBUTES", "the domain has attributes that cannot be trusted")
    if report.mrservicetd is not None and any(report.mrservicetd):
        raise VerificationError("SERVICE_TD", "a service domain is bound to the domain, and nobody judged it")


def _evidence(
    data: bytes,
    quote: TdxQuote,
    root: bytes,
    lists: Lists,
    info: TcbInfo,
    identity: QeIdentity,
    standings: Standings,
    fmspc: bytes,
) -> VerifiedEvidence:
    chains = {*quote.pck_chain, *info.signed.chain, *identity.signed.chain}
    certificates = [read_certificate(der) for der in chains]
    dated = (info, identity, lists.pck, lists.root)
    details = TdxDetails(
        quote_version=quote.version,
        report=quote.report,
        fmspc=fmspc,
        tcb_status=standings.status,
        advisory_ids=standings.advisory_ids,
        tcb_date=standings.platform.date,
        module_date=None if standings.module is None else standings.module.date,
        qe_date=standings.qe.date,
        evaluation_number=min(info.evaluation_number, identity.evaluation_number),
        collateral_issued_at=min(info.issued_at, identity.issued_at, lists.pck.issued_at),
    )
    debug = quote.report.attributes[0] != 0
    return VerifiedEvidence(
        platform="tdx",
        evidence_hash=sha256(data),
        measurements=tdx_measurements(quote.report),
        issued_at=None,
        not_before=max(*(one.not_before for one in certificates), *(one.issued_at for one in dated)),
        not_after=min(*(one.not_after for one in certificates), *(one.next_update for one in dated)),
        root_fingerprint=root,
        debug=debug,
        simulated=False,
        details=details,
        findings=_findings(standings, debug),
        token=VERIFIER_TOKEN,
    )


def _findings(standings: Standings, debug: bool) -> tuple[Finding, ...]:
    found: list[Finding] = []
    if standings.status != "UpToDate" or standings.advisory_ids:
        ids = ", ".join(standings.advisory_ids) or "no advisories named"
        found.append((f"TCB_{standings.status}", ids))
    if debug:
        found.append(("ONE_VERIFIER_ONLY", "the second verifier does not judge debug domains"))
    return tuple(found)
