"""Reads a TDX quote; says nothing about whether it is genuine.

Format: Intel TDX DCAP Quoting Library API, appendix A (quote versions 4 and 5, all
little endian). Head of 48 bytes; in version 5 a body descriptor (type, size); a TD
report body of 584 bytes (TDX 1.0) or 648 (TDX 1.5); the signature data with its own
length. Whatever follows that is not signed and not read: clouds pad quotes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from ...wire.errors import MalformedError

MAX_QUOTE_BYTES: Final = 16_384  # recorded quotes: 4.9 to 8.0 KB
MAX_AUTH_DATA_BYTES: Final = 1_024
MAX_CHAIN_BYTES: Final = 8_192
TEE_TYPE_TDX: Final = 0x81
ATTESTATION_KEY_ECDSA_P256: Final = 2
CERTIFICATION_QE_REPORT: Final = 6
CERTIFICATION_PCK_CHAIN: Final = 5
# Intel SGX DCAP, quote header: the vendor id of Intel's Quoting Enclave.
INTEL_QE_VENDOR: Final = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
HEADER_BYTES: Final = 48
TD10_BYTES: Final = 584
TD15_BYTES: Final = 648
QE_REPORT_BYTES: Final = 384
RTMR_COUNT: Final = 4

BodyType = Literal["TD10", "TD15"]
_BODY_TYPES: Final[dict[tuple[int, int], BodyType]] = {(2, TD10_BYTES): "TD10", (3, TD15_BYTES): "TD15"}


@dataclass(frozen=True, slots=True)
class TdReport:
    """A TD report body; all fields are byte strings as they stand.

    :param tee_tcb_svn: 16 bytes. :param tee_tcb_svn2: 16 bytes, only of TDX 1.5.
    :param rtmrs: RTMR0 to RTMR3, 48 bytes each. :param report_data: 64 bytes.
    """

    body_type: BodyType
    tee_tcb_svn: bytes
    mrseam: bytes = field(repr=False)
    mrsignerseam: bytes = field(repr=False)
    seam_attributes: bytes
    td_attributes: bytes
    xfam: bytes
    mrtd: bytes = field(repr=False)
    mrconfigid: bytes = field(repr=False)
    mrowner: bytes = field(repr=False)
    mrownerconfig: bytes = field(repr=False)
    rtmrs: tuple[bytes, ...] = field(repr=False)
    report_data: bytes = field(repr=False)
    tee_tcb_svn2: bytes | None = None
    mrservicetd: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class QeReport:
    """The report of the Quoting Enclave, 384 bytes (Intel SGX, REPORT body)."""

    raw: bytes = field(repr=False)
    cpu_svn: bytes
    misc_select: bytes
    attributes: bytes
    mr_enclave: bytes = field(repr=False)
    mr_signer: bytes = field(repr=False)
    isv_prod_id: int
    isv_svn: int
    report_data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class TdxQuote:
    """A well-formed quote whose signatures have *not* been checked.

    :param version: 4 or 5. :param signed: the bytes that the attestation key signed.
    :param signature: r ‖ s, 64 bytes. :param attestation_key: x ‖ y on P-256, 64 bytes.
    :param pck_chain: PEM, the PCK certificate first. :param trailing: how many bytes follow the quote.
    """

    version: int
    signed: bytes = field(repr=False)
    report: TdReport
    signature: bytes = field(repr=False)
    attestation_key: bytes = field(repr=False)
    qe_report: QeReport
    qe_signature: bytes = field(repr=False)
    qe_auth_data: bytes = field(repr=False)
    pck_chain: bytes = field(repr=False)
    trailing: int


class _Reader:
    """Takes fields off bytes, one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.position = 0

    def take(self, size: int) -> bytes:
        start, self.position = self.position, self.position + size
        if self.position > len(self._data):
            raise MalformedError("QUOTE_TRUNCATED", "the quote ends inside a field")
        return self._data[start : self.position]

    def uint(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    @property
    def left(self) -> int:
        return len(self._data) - self.position


def parse(data: bytes) -> TdxQuote:
    """Read a quote and hold every field to its bounds.

    :raises MalformedError: ``QUOTE_TOO_LARGE``, ``QUOTE_TRUNCATED``, ``QUOTE_VERSION``, ``QUOTE_KIND`` (not
        ECDSA P-256 of a TD, made by Intel's Quoting Enclave), ``QUOTE_BODY`` or ``QUOTE_CERTIFICATION``.
    """
    if len(data) > MAX_QUOTE_BYTES:
        raise MalformedError("QUOTE_TOO_LARGE", f"the quote has more than {MAX_QUOTE_BYTES} bytes")
    reader = _Reader(bytes(data))
    version = _header(reader)
    report = _body(reader, version)
    signed = data[: reader.position]
    signature_data = _Reader(reader.take(reader.uint(4)))
    signature, key = signature_data.take(64), signature_data.take(64)
    certification = _Reader(_certified(signature_data, CERTIFICATION_QE_REPORT))
    if signature_data.left:
        raise MalformedError("QUOTE_CERTIFICATION", "the signature data holds more than it should")
    qe_report = _qe_report(certification.take(QE_REPORT_BYTES))
    qe_signature = certification.take(64)
    auth_data = _auth_data(certification)
    chain = _certified(certification, CERTIFICATION_PCK_CHAIN)
    if certification.left or not 1 <= len(chain) <= MAX_CHAIN_BYTES:
        raise MalformedError("QUOTE_CERTIFICATION", "the quote's certification data is not of its form")
    return TdxQuote(
        version=version,
        signed=bytes(signed),
        report=report,
        signature=signature,
        attestation_key=key,
        qe_report=qe_report,
        qe_signature=qe_signature,
        qe_auth_data=auth_data,
        pck_chain=chain,
        trailing=reader.left,
    )


def _header(reader: _Reader) -> int:
    version, key_type, tee_type = reader.uint(2), reader.uint(2), reader.uint(4)
    if version not in (4, 5):
        raise MalformedError("QUOTE_VERSION", "the quote is not of version 4 or 5")
    reader.take(4)
    vendor = reader.take(16)
    reader.take(20)
    if (key_type, tee_type, vendor) != (ATTESTATION_KEY_ECDSA_P256, TEE_TYPE_TDX, INTEL_QE_VENDOR):
        raise MalformedError("QUOTE_KIND", "the quote is not of a TD, by ECDSA P-256 and Intel's enclave")
    return version


def _body(reader: _Reader, version: int) -> TdReport:
    kind = (2, TD10_BYTES) if version == 4 else (reader.uint(2), reader.uint(4))
    body_type = _BODY_TYPES.get(kind)
    if body_type is None:
        raise MalformedError("QUOTE_BODY", "the quote's body is no TD report of TDX 1.0 or 1.5")
    fields = [reader.take(size) for size in (16, 48, 48, 8, 8, 8, 48, 48, 48, 48)]
    rtmrs = tuple(reader.take(48) for _ in range(RTMR_COUNT))
    report_data = reader.take(64)
    newer = (reader.take(16), reader.take(48)) if body_type == "TD15" else (None, None)
    return TdReport(body_type, *fields, rtmrs, report_data, *newer)


def _certified(reader: _Reader, wanted: int) -> bytes:
    kind, size = reader.uint(2), reader.uint(4)
    if kind != wanted:
        raise MalformedError("QUOTE_CERTIFICATION", "the quote is certified in another way")
    return reader.take(size)


def _auth_data(reader: _Reader) -> bytes:
    size = reader.uint(2)
    if size > MAX_AUTH_DATA_BYTES:
        raise MalformedError("QUOTE_CERTIFICATION", "the quoting enclave's own data is too long")
    return reader.take(size)


def _qe_report(raw: bytes) -> QeReport:
    return QeReport(
        raw=raw,
        cpu_svn=raw[0:16],
        misc_select=raw[16:20],
        attributes=raw[48:64],
        mr_enclave=raw[64:96],
        mr_signer=raw[128:160],
        isv_prod_id=int.from_bytes(raw[256:258], "little"),
        isv_svn=int.from_bytes(raw[258:260], "little"),
        report_data=raw[320:384],
    )
