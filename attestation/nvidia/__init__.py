"""NVIDIA GPUs in confidential-computing mode: their reports, or what the vendor's service says of them.

A companion of the CPU's evidence: the GPUs answer the SHA-256 of it as their nonce.

>>> from ephemeralml.attestation.nvidia import NvidiaEndorsements
>>> from ephemeralml.attestation.nvidia.verify import verify
>>> from ephemeralml.wire.errors import Error
>>> try:
...     verify(b"not evidence", NvidiaEndorsements(), now=1_700_000_000)
... except Error as error:
...     print(type(error).__name__)
MalformedError
"""

from __future__ import annotations

from .details import NvidiaDetails, NvidiaDevice
from .endorsements import DEVICE_ROOT, NRAS_ISSUER, RIM_ROOT, NvidiaEndorsements, from_files
from .parse import MAX_EVIDENCE_BYTES, NvidiaEvidence
from .policy import NvidiaPolicy, NvidiaVersions
from .vendor import evidence_from

__all__ = [
    "DEVICE_ROOT",
    "MAX_EVIDENCE_BYTES",
    "NRAS_ISSUER",
    "RIM_ROOT",
    "NvidiaDetails",
    "NvidiaDevice",
    "NvidiaEndorsements",
    "NvidiaEvidence",
    "NvidiaPolicy",
    "NvidiaVersions",
    "evidence_from",
    "from_files",
]
