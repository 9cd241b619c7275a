"""Intel TDX: quotes, parsed (:mod:`.parse`) and verified with Intel's collateral (:mod:`.verify`).

>>> from ephemeralml.attestation.tdx import TdxEndorsements
>>> from ephemeralml.attestation.tdx.verify import verify
>>> from ephemeralml.wire.errors import Error
>>> try:
...     verify(b"not a quote", TdxEndorsements(), now=1_700_000_000)
... except Error as error:
...     print(error.code)
NOT_A_TDX_QUOTE
"""

from __future__ import annotations

from .collateral import TcbStatus
from .details import TdxDetails
from .endorsements import INTEL_SGX_ROOT, TdxEndorsements, from_files
from .parse import MAX_QUOTE_BYTES, TdReport, TdxQuote
from .policy import TdxMeasurementSet, TdxPolicy

__all__ = [
    "INTEL_SGX_ROOT",
    "MAX_QUOTE_BYTES",
    "TcbStatus",
    "TdReport",
    "TdxDetails",
    "TdxEndorsements",
    "TdxMeasurementSet",
    "TdxPolicy",
    "TdxQuote",
    "from_files",
]
