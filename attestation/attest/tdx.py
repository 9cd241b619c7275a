"""The attester of a TDX guest: asks the kernel for quotes.

>>> from pathlib import Path
>>> from ephemeralml.attestation.attest.tdx import TdxAttester
>>> from ephemeralml.attestation.attest.tsm import TsmFiles
>>> from ephemeralml.wire.errors import ConfigurationError
>>> try:
...     TdxAttester(TsmFiles(Path("/nonexistent"))).attest(public_key=b"k" * 32)
... except ConfigurationError as error:
...     print(error.code)
NO_TSM
"""

from __future__ import annotations

from typing import Final, Literal

from ...wire.encoding import sha256
from ...wire.errors import MalformedError
from ..evidence import Measurements
from ..tdx.details import MAX_NONCE_BYTES, nonce_digest, tdx_measurements
from ..tdx.parse import parse
from .tsm import TsmFiles, tsm_report

__all__ = ["TdxAttester", "report_data_for"]

_HALF: Final = 32


class TdxAttester:
    """Makes quotes of the trust domain that it runs in.

    :param files: the kernel's interface; another one where it stands elsewhere.
    """

    platform: Final[Literal["tdx"]] = "tdx"

    def __init__(self, files: TsmFiles | None = None) -> None:
        self._files = TsmFiles() if files is None else files

    def measurements(self) -> Measurements:
        """Return MRTD and the RTMRs, out of a quote that vouches for nothing.

        :raises Error: as :meth:`attest`.
        """
        return tdx_measurements(parse(self.attest()).report)

    def attest(
        self, *, public_key: bytes | None = None, user_data: bytes | None = None, nonce: bytes | None = None
    ) -> bytes:
        """Return a fresh quote that vouches for these values.

        The quote is read again before it is handed out: one that vouches for something else would be
        noticed by every verifier, but here it can still be said why.

        :param public_key: any bytes; their SHA-256 is carried. :param user_data: 32 bytes.
        :param nonce: at most 1,024 bytes, and only without ``user_data``, whose room it takes.
        :raises MalformedError: ``OUT_OF_BOUNDS``, ``TSM_BAD_ANSWER``, or ``TSM_WRONG_ANSWER``: a quote that
            does not carry the values.
        :raises ConfigurationError: as :func:`.tsm.tsm_report`.
        """
        wanted = report_data_for(public_key, user_data, nonce)
        data = tsm_report(wanted, self._files)
        try:
            quote = parse(data)
        except MalformedError:
            raise MalformedError("TSM_BAD_ANSWER", "the kernel's quote does not follow its format") from None
        if quote.report.report_data != wanted:
            raise MalformedError("TSM_WRONG_ANSWER", "the kernel's quote carries other values")
        return data


def report_data_for(public_key: bytes | None, user_data: bytes | None, nonce: bytes | None = None) -> bytes:
    """Return REPORTDATA: SHA-256 of the key, then user data or the digest of a nonce; zeros for what is None.

    :raises MalformedError: ``OUT_OF_BOUNDS``.
    """
    if user_data is not None and len(user_data) != _HALF:
        raise MalformedError("OUT_OF_BOUNDS", "a TDX quote carries user data of 32 bytes: a digest")
    if nonce is not None and (user_data is not None or not 0 < len(nonce) <= MAX_NONCE_BYTES):
        raise MalformedError(
            "OUT_OF_BOUNDS", "a TDX quote carries a nonce of 1 to 1,024 bytes, and none beside user data"
        )
    first = bytes(_HALF) if public_key is None else sha256(public_key)
    second = bytes(_HALF) if nonce is None else nonce_digest(nonce)
    return first + (second if user_data is None else user_data)
