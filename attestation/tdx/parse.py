"""Reads a TDX quote, version 4 or 5; says nothing about whether it is genuine.

Format and offsets: Intel, "Intel TDX DCAP: Quote Generation Library and Quote Verification Library",
appendix 3 (quote version 4) and appendix 4 (version 5). All integers are little-endian.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from ...wire.errors import MalformedError
from .pem import read_pem_chain

MAX_QUOTE_BYTES: Final = 32_768  # recorded quotes: 4.9 to 8.0 KB
HEADER_BYTES: Final = 48
TD10_BYTES: Final = 584
TD15_BYTES: Final = 648
QE_REPORT_BYTES: Final = 384
SIGNATURE_BYTES: Final = 64
MAX_AUTH_DATA_BYTES: Final = 1_024  # recorded quotes: 32

TEE_TDX: Final = 0x81
KEY_ECDSA_P256: Final = 2
# Intel's quoting enclave (the same appendix, "QE Vendor ID").
INTEL_QE: Final = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
_BODY_BYTES: Final = {2: TD10_BYTES, 3: TD15_BYTES}
_QE_REPORT_DATA: Final = 6
_PCK_CHAIN: Final = 5
_PCK_CHAIN_LENGTH: Final = 3


@dataclass(frozen=True, slots=True)
class TdReport:
    """What the TDX module and the quoting enclave say of a trust domain.

    Lengths in bytes: SVNs 16; MRSEAM, MRTD and all other measurements 48; attributes and XFAM 8;
    REPORTDATA 64.

    :param rtmrs: RTMR0 to RTMR3.
    :param tee_tcb_svn2: :param mrservicetd: of TDX 1.5 reports; None in 1.0 reports.
    """

    tee_tcb_svn: bytes
    mrseam: bytes
    mrsignerseam: bytes
    seam_attributes: bytes
    attributes: bytes
    xfam: bytes
    mrtd: bytes
    mrconfigid: bytes
    mrowner: bytes
    mrownerconfig: bytes
    rtmrs: tuple[bytes, bytes, bytes, bytes]
    report_data: bytes
    tee_tcb_svn2: bytes | None
    mrservicetd: bytes | None


@dataclass(frozen=True, slots=True)
class QeReport:
    """The report of the quoting enclave, an SGX enclave.

    :param raw: the 384 bytes that the PCK key signed.
    """

    raw: bytes = field(repr=False)
    miscselect: bytes
    attributes: bytes
    mrsigner: bytes
    isv_prod_id: int
    isv_svn: int
    report_data: bytes


@dataclass(frozen=True, slots=True)
class TdxQuote:
    """A well-formed quote whose signatures have *not* been checked.

    :param signed: header and body, which the attestation key signed.
    :param attestation_key: P-256, x ‖ y, 64 bytes. :param signature: :param qe_signature: r ‖ s, 64 bytes.
    :param qe_auth_data: what the quoting enclave hashed beside the attestation key.
    :param pck_chain: DER certificates: PCK, its CA, the root.
    """

    version: int
    report: TdReport
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    attestation_key: bytes = field(repr=False)
    qe_report: QeReport = field(repr=False)
    qe_signature: bytes = field(repr=False)
    qe_auth_data: bytes = field(repr=False)
    pck_chain: tuple[bytes, ...] = field(repr=False)


class _Reader:
    """Takes fields from the front."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def take(self, size: int) -> bytes:
        end = self._position + size
        if end > len(self._data):
            raise MalformedError("TRUNCATED", "a quote ends before its last field")
        found = self._data[self._position : end]
        self._position = end
        return found

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def rest(self) -> bytes:
        return self.take(len(self._data) - self._position)


def parse(data: bytes) -> TdxQuote:
    """Read a quote.

    What follows the signature may be zeros only: platforms hand out buffers of fixed length.

    :raises MalformedError: ``TOO_LARGE``, ``TRUNCATED``, ``NOT_A_TDX_QUOTE``, ``BAD_QUOTE``,
        ``TRAILING_BYTES``, ``CERTIFICATION_DATA`` (the PCK chain is not in it) or ``BAD_CERTIFICATE``.
    """
    if len(data) > MAX_QUOTE_BYTES:
        raise MalformedError("TOO_LARGE", f"the quote has more than {MAX_QUOTE_BYTES} bytes")
    reader = _Reader(data)
    version = _header(reader)
    report = _body(reader, version)
    signed = data[: HEADER_BYTES + (0 if version == 4 else 6) + _size(report)]
    part = _Reader(reader.take(reader.number(4)))
    if any(reader.rest()):
        raise MalformedError("TRAILING_BYTES", "something follows the quote")
    signature, key = part.take(SIGNATURE_BYTES), part.take(64)
    certification = _Reader(_typed(part, _QE_REPORT_DATA))
    if part.rest():
        raise MalformedError("BAD_QUOTE", "something follows the certification data of the quote")
    raw, qe_signature = certification.take(QE_REPORT_BYTES), certification.take(SIGNATURE_BYTES)
    auth_data = certification.take(certification.number(2))
    if len(auth_data) > MAX_AUTH_DATA_BYTES:
        raise MalformedError("OUT_OF_BOUNDS", "the authentication data of the quoting enclave is too long")
    chain = read_pem_chain(_typed(certification, _PCK_CHAIN), length=_PCK_CHAIN_LENGTH)
    if certification.rest():
        raise MalformedError("BAD_QUOTE", "something follows the certificates of the quote")
    return TdxQuote(version, report, signed, signature, key, _qe_report(raw), qe_signature, auth_data, chain)


def _header(reader: _Reader) -> int:
    version, key_type, tee_type = reader.number(2), reader.number(2), reader.number(4)
    if version not in (4, 5) or tee_type != TEE_TDX:
        raise MalformedError("NOT_A_TDX_QUOTE", "the bytes are no TDX quote of version 4 or 5")
    if key_type != KEY_ECDSA_P256:
        raise MalformedError("BAD_QUOTE", "the quote's attestation key is not ECDSA P-256")
    reader.take(4)  # SVNs in version 3, reserved here
    if reader.take(16) != INTEL_QE:
        raise MalformedError("BAD_QUOTE", "the quote is not of Intel's quoting enclave")
    reader.take(20)
    return version


def _body(reader: _Reader, version: int) -> TdReport:
    if version == 4:
        return _report(_Reader(reader.take(TD10_BYTES)), newer=False)
    kind, size = reader.number(2), reader.number(4)
    if _BODY_BYTES.get(kind) != size:
        raise MalformedError("BAD_QUOTE", "the quote's body is of no kind that is known here")
    return _report(_Reader(reader.take(size)), newer=kind == 3)


def _report(body: _Reader, *, newer: bool) -> TdReport:
    return TdReport(
        tee_tcb_svn=body.take(16),
        mrseam=body.take(48),
        mrsignerseam=body.take(48),
        seam_attributes=body.take(8),
        attributes=body.take(8),
        xfam=body.take(8),
        mrtd=body.take(48),
        mrconfigid=body.take(48),
        mrowner=body.take(48),
        mrownerconfig=body.take(48),
        rtmrs=(body.take(48), body.take(48), body.take(48), body.take(48)),
        report_data=body.take(64),
        tee_tcb_svn2=body.take(16) if newer else None,
        mrservicetd=body.take(48) if newer else None,
    )


def _size(report: TdReport) -> int:
    return TD10_BYTES if report.mrservicetd is None else TD15_BYTES


def _typed(reader: _Reader, wanted: int) -> bytes:
    """Return certification data of the one kind that is read (the appendix, "QE Certification Data")."""
    kind, size = reader.number(2), reader.number(4)
    if kind != wanted:
        raise MalformedError("CERTIFICATION_DATA", "the quote does not carry its PCK certificate chain")
    return reader.take(size)


def _qe_report(raw: bytes) -> QeReport:
    """Read the report (Intel SDM, volume 3D, "REPORT")."""
    return QeReport(
        raw=raw,
        miscselect=raw[16:20],
        attributes=raw[48:64],
        mrsigner=raw[128:160],
        isv_prod_id=int.from_bytes(raw[256:258], "little"),
        isv_svn=int.from_bytes(raw[258:260], "little"),
        report_data=raw[320:384],
    )
