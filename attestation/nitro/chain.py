"""Walks a certificate chain from a pinned root to the signing certificate.

The profile is narrow on purpose (RFC 5280, section 6, less what Nitro never
uses): ECDSA P-384 with SHA-384 throughout, X.509 version 3, no critical
extension but basicConstraints and keyUsage. The anchor is pinned by the SHA-256
of its DER; its bytes come with the evidence.

Four fifths of a verification are its P-384 signatures, and documents of one fleet
share most of their chain. What never changes is therefore remembered in bounded
memory, keyed by all bytes of the certificates: what one says, and that one signed
another. Both are facts of those bytes alone. Whether a chain is wanted (its root,
profile, times, authority, lengths) is judged anew on every walk, and a failure is
never remembered.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePublicKey
from cryptography.x509.oid import ExtensionOID, SignatureAlgorithmOID

from ...wire.encoding import sha256
from ...wire.errors import EndorsementsError, MalformedError, VerificationError

# Some 4 MiB when full. The upper links are shared by a region; an enclave of its own adds two.
MAX_REMEMBERED: Final = 512
_UNDERSTOOD: Final = (ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE)


@dataclass(frozen=True, slots=True)
class _Certificate:
    """What the walk needs of a certificate, read once and with types."""

    x509: x509.Certificate
    public_key: EllipticCurvePublicKey
    not_before: int
    not_after: int
    is_ca: bool
    path_length: int | None
    signs_certificates: bool
    signs_data: bool


@dataclass(frozen=True, slots=True)
class VerifiedChain:
    """A chain that was walked.

    :param public_key: of the signing certificate, P-384.
    :param not_before: :param not_after: when all of it is valid, Unix seconds.
    :param root_fingerprint: SHA-256 of the anchor, 32 bytes.
    """

    public_key: EllipticCurvePublicKey
    not_before: int
    not_after: int
    leaf_not_before: int
    leaf_not_after: int
    root_fingerprint: bytes


def verify_chain(cabundle: Sequence[bytes], leaf: bytes, roots: Collection[bytes], now: int) -> VerifiedChain:
    """Verify a chain at a time.

    1. the first certificate of the bundle is a pinned root;
    2. every certificate keeps to the profile and is valid at ``now``;
    3. all but the leaf are CAs that may sign certificates, within their path lengths;
    4. the leaf is no CA and may sign data;
    5. each was issued by the one before it, by name and by signature.

    :param cabundle: DER, root first. :param leaf: DER. :param roots: SHA-256 fingerprints.
    :param now: Unix seconds.
    :raises EndorsementsError: ``NO_ROOTS``: nothing is pinned.
    :raises MalformedError: ``BAD_CERTIFICATE``.
    :raises VerificationError: ``UNKNOWN_ROOT``, ``CERTIFICATE_PROFILE``, ``CERTIFICATE_EXPIRED``,
        ``CERTIFICATE_NOT_YET_VALID``, ``NOT_A_CA``, ``PATH_LENGTH``, ``KEY_USAGE`` or ``CHAIN_BROKEN``.
    """
    if not roots:
        raise EndorsementsError("NO_ROOTS", "no trust anchor is configured for this platform")
    fingerprint = sha256(cabundle[0])
    if fingerprint not in roots:  # 1
        raise VerificationError("UNKNOWN_ROOT", "the chain does not begin at a pinned root")
    authorities = [_read(der) for der in cabundle]
    signer = _read(leaf)
    chain = [*authorities, signer]
    for certificate in chain:  # 2
        _check_valid(certificate, now)
    for position, certificate in enumerate(authorities):  # 3
        _check_authority(certificate, len(authorities) - 1 - position)
    _check_signer(signer)  # 4
    for issuer, der in pairwise((*cabundle, leaf)):  # 5
        _check_issued(issuer, der)
    return VerifiedChain(
        public_key=signer.public_key,
        not_before=max(certificate.not_before for certificate in chain),
        not_after=min(certificate.not_after for certificate in chain),
        leaf_not_before=signer.not_before,
        leaf_not_after=signer.not_after,
        root_fingerprint=fingerprint,
    )


@lru_cache(MAX_REMEMBERED)
def _read(der: bytes) -> _Certificate:
    try:
        certificate = x509.load_der_x509_certificate(der)
        if certificate.serial_number <= 0:  # the library only warns (RFC 5280, section 4.1.2.2)
            raise ValueError("serial number")
        extensions = {extension.oid: extension for extension in certificate.extensions}
        public_key = certificate.public_key()
        version = certificate.version
        algorithm = certificate.signature_algorithm_oid
        not_before = int(certificate.not_valid_before_utc.timestamp())
        not_after = int(certificate.not_valid_after_utc.timestamp())
    except Exception:  # hostile bytes raise ValueError, warnings and a dozen other kinds in the library
        raise MalformedError("BAD_CERTIFICATE", "a certificate cannot be read") from None
    if version is not x509.Version.v3 or algorithm != SignatureAlgorithmOID.ECDSA_WITH_SHA384:
        raise VerificationError("CERTIFICATE_PROFILE", "a certificate is not X.509 v3 with ECDSA and SHA-384")
    if not isinstance(public_key, EllipticCurvePublicKey) or not isinstance(public_key.curve, SECP384R1):
        raise VerificationError("CERTIFICATE_PROFILE", "a certificate's key is not P-384")
    if any(extension.critical and oid not in _UNDERSTOOD for oid, extension in extensions.items()):
        raise VerificationError("CERTIFICATE_PROFILE", "a certificate has an unknown critical extension")
    constraints = extensions.get(ExtensionOID.BASIC_CONSTRAINTS)
    usage = extensions.get(ExtensionOID.KEY_USAGE)
    basic = constraints.value if constraints is not None else None
    uses = usage.value if usage is not None else None
    is_ca = isinstance(basic, x509.BasicConstraints) and basic.ca
    return _Certificate(
        x509=certificate,
        public_key=public_key,
        not_before=not_before,
        not_after=not_after,
        is_ca=is_ca,
        path_length=basic.path_length if isinstance(basic, x509.BasicConstraints) else None,
        signs_certificates=isinstance(uses, x509.KeyUsage) and uses.key_cert_sign,
        signs_data=isinstance(uses, x509.KeyUsage) and uses.digital_signature,
    )


def _check_valid(certificate: _Certificate, now: int) -> None:
    if now < certificate.not_before:
        raise VerificationError("CERTIFICATE_NOT_YET_VALID", "a certificate is not valid yet at this time")
    if now > certificate.not_after:
        raise VerificationError("CERTIFICATE_EXPIRED", "a certificate has expired at this time")


def _check_authority(certificate: _Certificate, authorities_below: int) -> None:
    if not certificate.is_ca:
        raise VerificationError("NOT_A_CA", "a certificate of the cabundle is no CA")
    if not certificate.signs_certificates:
        raise VerificationError("KEY_USAGE", "a CA may not sign certificates")
    if certificate.path_length is not None and certificate.path_length < authorities_below:
        raise VerificationError("PATH_LENGTH", "the chain is longer than one of its CAs allows")


def _check_signer(certificate: _Certificate) -> None:
    if certificate.is_ca:
        raise VerificationError("KEY_USAGE", "the signing certificate is a CA")
    if not certificate.signs_data:
        raise VerificationError("KEY_USAGE", "the signing certificate may not sign data")


@lru_cache(MAX_REMEMBERED)
def _check_issued(issuer: bytes, certificate: bytes) -> None:
    """Check name and signature; only links below a pinned root come here, so strangers cannot fill it."""
    try:
        _read(certificate).x509.verify_directly_issued_by(_read(issuer).x509)
    except (InvalidSignature, ValueError, TypeError):
        raise VerificationError("CHAIN_BROKEN", "a certificate was not issued by the one before it") from None
