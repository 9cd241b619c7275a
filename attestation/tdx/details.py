"""What a verified TDX quote says, beyond what all platforms share."""

from __future__ import annotations

from dataclasses import dataclass, field
from hmac import compare_digest
from typing import Final

from ...wire.encoding import sha256
from ...wire.errors import VerificationError
from ..evidence import Measurements, VerifiedEvidence
from .collateral import TcbStatus
from .parse import TdReport

MAX_NONCE_BYTES: Final = 1_024
_NONCE_PREFIX: Final = b"nonce:"


@dataclass(frozen=True, slots=True)
class TdxDetails:
    """The quote's report and how its TCB stands.

    :param quote_version: 4 or 5. :param report: as the TDX module made it.
    :param fmspc: which kind of platform, 6 bytes.
    :param tcb_status: of platform, TDX module and quoting enclave together.
    :param advisory_ids: of all of them, sorted.
    :param tcb_date: :param module_date: :param qe_date: of the levels that are reached, Unix seconds;
        ``module_date`` is None for TDX modules 1.0.
    :param evaluation_number: the lower ``tcbEvaluationDataNumber`` of TCB info and enclave identity.
    :param collateral_issued_at: of the oldest of TCB info, enclave identity and PCK revocation list.
    """

    quote_version: int
    report: TdReport = field(repr=False)
    fmspc: bytes
    tcb_status: TcbStatus
    advisory_ids: tuple[str, ...]
    tcb_date: int
    module_date: int | None
    qe_date: int
    evaluation_number: int
    collateral_issued_at: int

    @classmethod
    def of(cls, verified: VerifiedEvidence) -> TdxDetails:
        """Return the details of a TDX quote.

        :raises VerificationError: ``WRONG_PLATFORM``: the evidence is of another format.
        """
        if not isinstance(verified.details, cls):
            raise VerificationError("WRONG_PLATFORM", "the evidence is no TDX quote")
        return verified.details

    def binds_key(self, receipt_key: bytes) -> bool:
        """Return whether the first half of REPORTDATA is the SHA-256 of this raw key."""
        return compare_digest(self.report.report_data[:32], sha256(receipt_key))

    def binds_announcement(self, digest: bytes) -> bool:
        """Return whether the second half of REPORTDATA is this digest."""
        return compare_digest(self.report.report_data[32:], digest)

    def binds_nonce(self, nonce: bytes) -> bool:
        """Return whether the second half of REPORTDATA is the digest of this challenge."""
        return compare_digest(self.report.report_data[32:], nonce_digest(nonce))


def nonce_digest(nonce: bytes) -> bytes:
    """Return what stands for a challenge in REPORTDATA.

    The prefix is needed: a challenge is chosen by somebody else, who could otherwise choose the bytes of an
    announcement of theirs. No announcement begins so: its body is a CBOR map.
    """
    return sha256(_NONCE_PREFIX + nonce)


def tdx_measurements(report: TdReport) -> Measurements:
    """Return MRTD and the RTMRs in the slots that AIR v1 carries."""
    rtmrs = {f"pcr{index + 1}": value for index, value in enumerate(report.rtmrs)}
    return Measurements("tdx-mrtd-rtmr", {"pcr0": report.mrtd, **rtmrs})
