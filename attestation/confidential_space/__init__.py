"""Google Confidential Space: attestation tokens, parsed (:mod:`.parse`) and verified (:mod:`.verify`).

>>> from ephemeralml.attestation.confidential_space import ConfidentialSpaceEndorsements
>>> from ephemeralml.attestation.confidential_space.verify import verify
>>> from ephemeralml.wire.errors import Error
>>> try:
...     verify(b"not a token", ConfidentialSpaceEndorsements(), now=1_700_000_000)
... except Error as error:
...     print(error.code)
BAD_JWT
"""

from __future__ import annotations

from .details import ConfidentialSpaceDetails
from .endorsements import (
    GOOGLE_CONFIDENTIAL_SPACE_ROOT,
    GOOGLE_ISSUER,
    ConfidentialSpaceEndorsements,
    SigningKey,
    read_jwks,
)
from .parse import MAX_TOKEN_BYTES, ConfidentialSpaceToken
from .policy import ConfidentialSpacePolicy, WorkloadImage

__all__ = [
    "GOOGLE_CONFIDENTIAL_SPACE_ROOT",
    "GOOGLE_ISSUER",
    "MAX_TOKEN_BYTES",
    "ConfidentialSpaceDetails",
    "ConfidentialSpaceEndorsements",
    "ConfidentialSpacePolicy",
    "ConfidentialSpaceToken",
    "SigningKey",
    "WorkloadImage",
    "read_jwks",
]
