"""AWS Nitro Enclaves: attestation documents, parsed (:mod:`.parse`) and verified (:mod:`.verify`).

>>> from ephemeralml.attestation.nitro import NitroEndorsements
>>> from ephemeralml.attestation.nitro.verify import verify
>>> from ephemeralml.wire.errors import Error
>>> try:
...     verify(b"not a document", NitroEndorsements(), now=1_700_000_000)
... except Error as error:
...     print(type(error).__name__)
MalformedError
"""

from __future__ import annotations

from .details import NitroDetails
from .endorsements import AWS_NITRO_ROOT_G1, NitroEndorsements
from .parse import MAX_DOCUMENT_BYTES, NitroDocument
from .policy import MeasurementSet

__all__ = [
    "AWS_NITRO_ROOT_G1",
    "MAX_DOCUMENT_BYTES",
    "MeasurementSet",
    "NitroDetails",
    "NitroDocument",
    "NitroEndorsements",
]
