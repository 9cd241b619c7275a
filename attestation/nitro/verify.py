"""Verifies a Nitro attestation document: genuine, at a given time, under pinned roots.

A function of its arguments: no clock, no network. A document of the past
verifies at its own time; the signing certificate lives three hours.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384

from ...wire.cose import sig_structure
from ...wire.encoding import sha256
from ...wire.errors import VerificationError
from ..evidence import VERIFIER_TOKEN, VerifiedEvidence
from .chain import verify_chain
from .details import NitroDetails, nitro_measurements
from .endorsements import NitroEndorsements
from .parse import NitroDocument, parse

_COORDINATE: Final = 48


def verify(document: bytes | NitroDocument, endorsements: NitroEndorsements, now: int) -> VerifiedEvidence:
    """Verify a document of a real Nitro Enclave.

    A debug-mode document is genuine too: it comes back with ``debug=True`` and appraisal refuses it.

    :param now: Unix seconds at which every certificate must be valid.
    :raises MalformedError: as :func:`.parse.parse`.
    :raises VerificationError: as :func:`.chain.verify_chain`, ``SIG_FAILED`` or ``TIMESTAMP_OUTSIDE``.
    :raises EndorsementsError: ``NO_ROOTS``.
    """
    return verify_as("nitro", document, endorsements.roots, now)


def verify_as(
    platform: str, document: bytes | NitroDocument, roots: Collection[bytes], now: int
) -> VerifiedEvidence:
    """Verify a Nitro-format document for one platform: the shared steps of real and simulated ones.

    1. the document keeps to its format and bounds;
    2. its certificate chains to a pinned root, valid at ``now``;
    3. the certificate's key signed the document;
    4. the document was made while that certificate was valid.

    :raises Error: as :func:`verify`.
    """
    # Always from the bytes: a NitroDocument's fields are the caller's word, its bytes are signed.
    parsed = parse(document.raw if isinstance(document, NitroDocument) else document)  # 1
    chain = verify_chain(parsed.cabundle, parsed.certificate, roots, now)  # 2
    _check_signature(parsed, chain.public_key)  # 3
    issued_at = parsed.timestamp_ms // 1000
    if not chain.leaf_not_before <= issued_at <= chain.leaf_not_after:  # 4
        raise VerificationError("TIMESTAMP_OUTSIDE", "the document was made outside its certificate's life")
    return VerifiedEvidence(
        platform=platform,
        evidence_hash=sha256(parsed.raw),
        measurements=nitro_measurements(parsed.pcrs),
        issued_at=issued_at,
        not_before=chain.not_before,
        not_after=chain.not_after,
        root_fingerprint=chain.root_fingerprint,
        # A debug enclave reads zero in all three; one zero among them can be no measurement either.
        debug=any(not any(parsed.pcrs[index]) for index in (0, 1, 2)),
        simulated=platform != "nitro",
        details=NitroDetails(
            dict(parsed.pcrs), parsed.public_key, parsed.user_data, parsed.nonce, parsed.module_id
        ),
        token=VERIFIER_TOKEN,
    )


def _check_signature(document: NitroDocument, public_key: EllipticCurvePublicKey) -> None:
    r = int.from_bytes(document.signature[:_COORDINATE], "big")
    s = int.from_bytes(document.signature[_COORDINATE:], "big")
    signed = sig_structure(document.protected_bytes, document.payload)
    try:
        public_key.verify(encode_dss_signature(r, s), signed, ECDSA(SHA384()))
    except (InvalidSignature, ValueError):
        raise VerificationError("SIG_FAILED", "the document's signature does not match") from None
