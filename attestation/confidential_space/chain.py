"""Walks the chain of a PKI token from its pinned root to the certificate that signed.

The profile is narrow on purpose (RFC 5280, section 6, less what Google's chain
never uses): RSA of 2,048 to 8,192 bits, PKCS #1 v1.5 with SHA-256 throughout,
X.509 version 3, no critical extension but basicConstraints and keyUsage. The anchor
is pinned by the SHA-256 of its DER; its bytes come with the token, last in ``x5c``.

What a certificate says, and that one signed another, are facts of their bytes: they
are remembered in bounded memory. Whether a chain is wanted is judged on every walk.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509.oid import ExtensionOID, SignatureAlgorithmOID

from ...wire.encoding import sha256
from ...wire.errors import EndorsementsError, MalformedError, VerificationError
from ..jwt import MAX_RSA_BITS, MIN_RSA_BITS
from .endorsements import RSA_EXPONENT

MAX_REMEMBERED: Final = 64  # one leaf serves all tokens of weeks
_UNDERSTOOD: Final = (ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE)


@dataclass(frozen=True, slots=True)
class _Certificate:
    certificate: x509.Certificate
    public_key: RSAPublicKey
    not_before: int
    not_after: int
    is_ca: bool
    path_length: int | None
    usage: x509.KeyUsage | None


@dataclass(frozen=True, slots=True)
class VerifiedChain:
    """A chain that was walked.

    :param public_key: of the signing certificate. :param root_fingerprint: SHA-256, 32 bytes.
    :param not_before: :param not_after: when all of it is valid, Unix seconds.
    :param leaf_not_before: :param leaf_not_after: when the signing certificate is.
    """

    public_key: RSAPublicKey
    not_before: int
    not_after: int
    leaf_not_before: int
    leaf_not_after: int
    root_fingerprint: bytes


def verify_chain(chain: Sequence[bytes], roots: Collection[bytes], now: int) -> VerifiedChain:
    """Verify a chain at a time.

    1. the last certificate is a pinned root;
    2. every certificate keeps to the profile and is valid at ``now``;
    3. all but the first are CAs that may sign certificates, within their path lengths;
    4. the first is no CA, and nothing forbids it to sign data: Google's states no keyUsage;
    5. each was issued by the one after it, by name and by signature.

    :param chain: DER, the signing certificate first. :param roots: SHA-256 fingerprints.
    :param now: Unix seconds.
    :raises EndorsementsError: ``NO_ROOTS``: nothing is pinned.
    :raises MalformedError: ``BAD_CERTIFICATE``.
    :raises VerificationError: ``UNKNOWN_ROOT``, ``CERTIFICATE_PROFILE``, ``CERTIFICATE_EXPIRED``,
        ``CERTIFICATE_NOT_YET_VALID``, ``NOT_A_CA``, ``PATH_LENGTH``, ``KEY_USAGE`` or ``CHAIN_BROKEN``.
    """
    if not roots:
        raise EndorsementsError("NO_ROOTS", "no trust anchor is configured for this platform")
    fingerprint = sha256(chain[-1])
    if fingerprint not in roots:  # 1
        raise VerificationError("UNKNOWN_ROOT", "the chain does not end at a pinned root")
    certificates = [_read(der) for der in chain]
    for certificate in certificates:  # 2
        _check_valid(certificate, now)
    signer, *authorities = certificates
    for below, certificate in enumerate(authorities):  # 3
        _check_authority(certificate, below)
    _check_signer(signer)  # 4
    for issued, issuer in pairwise(chain):  # 5
        _check_issued(issuer, issued)
    return VerifiedChain(
        public_key=signer.public_key,
        not_before=max(certificate.not_before for certificate in certificates),
        not_after=min(certificate.not_after for certificate in certificates),
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
    if version is not x509.Version.v3 or algorithm != SignatureAlgorithmOID.RSA_WITH_SHA256:
        raise VerificationError("CERTIFICATE_PROFILE", "a certificate is not X.509 v3 with RSA and SHA-256")
    if not isinstance(public_key, RSAPublicKey) or not _is_strong(public_key):
        raise VerificationError("CERTIFICATE_PROFILE", "a certificate's key is not RSA of a fitting size")
    if any(extension.critical and oid not in _UNDERSTOOD for oid, extension in extensions.items()):
        raise VerificationError("CERTIFICATE_PROFILE", "a certificate has an unknown critical extension")
    constraints = extensions.get(ExtensionOID.BASIC_CONSTRAINTS)
    basic = constraints.value if constraints is not None else None
    usage = extensions.get(ExtensionOID.KEY_USAGE)
    return _Certificate(
        certificate=certificate,
        public_key=public_key,
        not_before=not_before,
        not_after=not_after,
        is_ca=isinstance(basic, x509.BasicConstraints) and basic.ca,
        path_length=basic.path_length if isinstance(basic, x509.BasicConstraints) else None,
        usage=usage.value if usage is not None and isinstance(usage.value, x509.KeyUsage) else None,
    )


def _is_strong(key: RSAPublicKey) -> bool:
    return MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS and key.public_numbers().e == RSA_EXPONENT


def _check_valid(certificate: _Certificate, now: int) -> None:
    if now < certificate.not_before:
        raise VerificationError("CERTIFICATE_NOT_YET_VALID", "a certificate is not valid yet at this time")
    if now > certificate.not_after:
        raise VerificationError("CERTIFICATE_EXPIRED", "a certificate has expired at this time")


def _check_authority(certificate: _Certificate, authorities_below: int) -> None:
    if not certificate.is_ca:
        raise VerificationError("NOT_A_CA", "an issuing certificate is no CA")
    if certificate.usage is None or not certificate.usage.key_cert_sign:
        raise VerificationError("KEY_USAGE", "a CA may not sign certificates")
    if certificate.path_length is not None and certificate.path_length < authorities_below:
        raise VerificationError("PATH_LENGTH", "the chain is longer than one of its CAs allows")


def _check_signer(certificate: _Certificate) -> None:
    if certificate.is_ca:
        raise VerificationError("KEY_USAGE", "the signing certificate is a CA")
    if certificate.usage is not None and not certificate.usage.digital_signature:
        raise VerificationError("KEY_USAGE", "the signing certificate may not sign data")


@lru_cache(MAX_REMEMBERED)
def _check_issued(issuer: bytes, certificate: bytes) -> None:
    """Check name and signature; only links below a pinned root come here, so strangers cannot fill it."""
    try:
        _read(certificate).certificate.verify_directly_issued_by(_read(issuer).certificate)
    except (InvalidSignature, ValueError, TypeError):
        raise VerificationError("CHAIN_BROKEN", "a certificate was not issued by the one after it") from None
