"""Certificates and revocation lists of Intel's SGX PKI.

The profile is narrow (Intel, "SGX PCK Certificate and CRL Profile Specification"): ECDSA P-256 with
SHA-256 throughout, X.509 version 3, no critical extension but basicConstraints and keyUsage. What a
certificate's or list's bytes say, and that one signed another, never changes and is remembered in bounded
memory by all their bytes; times, revocation and roots are judged anew every time.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509 import Name
from cryptography.x509.oid import ExtensionOID, NameOID, SignatureAlgorithmOID

from ...wire.encoding import sha256
from ...wire.errors import EndorsementsError, MalformedError, VerificationError

MAX_REMEMBERED: Final = 128
_UNDERSTOOD: Final = (ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE)
_LIST_UNDERSTOOD: Final = (ExtensionOID.AUTHORITY_KEY_IDENTIFIER, ExtensionOID.CRL_NUMBER)


@dataclass(frozen=True, slots=True)
class Certificate:
    """What the checks need of a certificate, read once and with types."""

    x509: x509.Certificate = field(repr=False)
    public_key: EllipticCurvePublicKey = field(repr=False)
    serial: int
    subject: Name = field(repr=False)
    common_name: str
    not_before: int
    not_after: int
    is_ca: bool
    path_length: int | None
    signs_certificates: bool
    signs_lists: bool
    signs_data: bool


@dataclass(frozen=True, slots=True)
class RevocationList:
    """A certificate revocation list.

    :param der: the list as it was signed. :param issued_at: :param next_update: Unix seconds.
    :param serials: of revoked certificates.
    """

    der: bytes = field(repr=False)
    x509: x509.CertificateRevocationList = field(repr=False)
    issuer: Name = field(repr=False)
    issued_at: int
    next_update: int
    serials: frozenset[int] = field(repr=False)


@lru_cache(MAX_REMEMBERED)
def read_certificate(der: bytes) -> Certificate:
    """Read a certificate of the profile.

    :raises MalformedError: ``BAD_CERTIFICATE``. :raises VerificationError: ``CERTIFICATE_PROFILE``.
    """
    try:
        certificate = x509.load_der_x509_certificate(der)
        extensions = {extension.oid: extension for extension in certificate.extensions}
        public_key = certificate.public_key()
        subject = certificate.subject
        names = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        not_before = int(certificate.not_valid_before_utc.timestamp())
        not_after = int(certificate.not_valid_after_utc.timestamp())
        version, algorithm = certificate.version, certificate.signature_algorithm_oid
        serial = certificate.serial_number
        if serial <= 0:  # RFC 5280, section 4.1.2.2
            raise ValueError("serial number")
    except Exception:  # hostile bytes raise ValueError, warnings and a dozen other kinds in the library
        raise MalformedError("BAD_CERTIFICATE", "a certificate cannot be read") from None
    if version is not x509.Version.v3 or algorithm != SignatureAlgorithmOID.ECDSA_WITH_SHA256:
        raise VerificationError("CERTIFICATE_PROFILE", "a certificate is not X.509 v3 with ECDSA and SHA-256")
    if not isinstance(public_key, EllipticCurvePublicKey) or not isinstance(public_key.curve, SECP256R1):
        raise VerificationError("CERTIFICATE_PROFILE", "a certificate's key is not P-256")
    if any(extension.critical and oid not in _UNDERSTOOD for oid, extension in extensions.items()):
        raise VerificationError("CERTIFICATE_PROFILE", "a certificate has an unknown critical extension")
    constraints, usage = (extensions.get(oid) for oid in _UNDERSTOOD)
    basic = constraints.value if constraints is not None else None
    uses = usage.value if usage is not None else None
    return Certificate(
        x509=certificate,
        public_key=public_key,
        serial=serial,
        subject=subject,
        common_name=str(names[0].value) if len(names) == 1 else "",
        not_before=not_before,
        not_after=not_after,
        is_ca=isinstance(basic, x509.BasicConstraints) and basic.ca,
        path_length=basic.path_length if isinstance(basic, x509.BasicConstraints) else None,
        signs_certificates=isinstance(uses, x509.KeyUsage) and uses.key_cert_sign,
        signs_lists=isinstance(uses, x509.KeyUsage) and uses.crl_sign,
        signs_data=isinstance(uses, x509.KeyUsage) and uses.digital_signature,
    )


@lru_cache(MAX_REMEMBERED)
def read_list(der: bytes) -> RevocationList:
    """Read a revocation list.

    :raises MalformedError: ``BAD_CRL``.
    """
    try:
        crl = x509.load_der_x509_crl(der)
        unknown = any(one.critical and one.oid not in _LIST_UNDERSTOOD for one in crl.extensions)
        serials = frozenset(entry.serial_number for entry in crl)
        issued_at, next_update = crl.last_update_utc, crl.next_update_utc
        good = not unknown and crl.signature_algorithm_oid == SignatureAlgorithmOID.ECDSA_WITH_SHA256
        if not good or next_update is None:
            raise ValueError("profile")
        times = int(issued_at.timestamp()), int(next_update.timestamp())
        return RevocationList(der, crl, crl.issuer, *times, serials)
    except Exception:  # as above
        raise MalformedError("BAD_CRL", "a certificate revocation list cannot be read") from None


def check_root(der: bytes, roots: Collection[bytes]) -> bytes:
    """Return the fingerprint of a pinned root.

    :raises EndorsementsError: ``NO_ROOTS``. :raises VerificationError: ``UNKNOWN_ROOT``.
    """
    if not roots:
        raise EndorsementsError("NO_ROOTS", "no trust anchor is configured for this platform")
    fingerprint = sha256(der)
    if fingerprint not in roots:
        raise VerificationError("UNKNOWN_ROOT", "the chain does not end at a pinned root")
    return fingerprint


def check_chain(chain: tuple[bytes, ...], now: int) -> None:
    """Check a chain, its signer first and its root last: profile, times, authority and signatures.

    :raises MalformedError: ``BAD_CERTIFICATE``.
    :raises VerificationError: ``CERTIFICATE_PROFILE``, ``CERTIFICATE_EXPIRED``,
        ``CERTIFICATE_NOT_YET_VALID``, ``NOT_A_CA``, ``PATH_LENGTH``, ``KEY_USAGE`` or ``CHAIN_BROKEN``.
    """
    signer, *authorities = (read_certificate(der) for der in chain)
    for certificate in (signer, *authorities):
        if now < certificate.not_before:
            raise VerificationError(
                "CERTIFICATE_NOT_YET_VALID", "a certificate is not valid yet at this time"
            )
        if now > certificate.not_after:
            raise VerificationError("CERTIFICATE_EXPIRED", "a certificate has expired at this time")
    for below, authority in enumerate(authorities):
        _check_authority(authority, below)
    if signer.is_ca or not signer.signs_data:
        raise VerificationError("KEY_USAGE", "the signing certificate may not sign data")
    for der, issuer in pairwise(chain):
        _check_issued(issuer, der)


def _check_authority(certificate: Certificate, authorities_below: int) -> None:
    if not certificate.is_ca:
        raise VerificationError("NOT_A_CA", "a certificate of the chain is no CA")
    if not certificate.signs_certificates or not certificate.signs_lists:
        raise VerificationError("KEY_USAGE", "a CA may not sign certificates and revocation lists")
    if certificate.path_length is not None and certificate.path_length < authorities_below:
        raise VerificationError("PATH_LENGTH", "the chain is longer than one of its CAs allows")


@lru_cache(MAX_REMEMBERED)
def _check_issued(issuer: bytes, certificate: bytes) -> None:
    """Check name and signature; only chains below a pinned root come here."""
    try:
        read_certificate(certificate).x509.verify_directly_issued_by(read_certificate(issuer).x509)
    except (InvalidSignature, ValueError, TypeError):
        raise VerificationError("CHAIN_BROKEN", "a certificate was not issued by the next") from None


@lru_cache(MAX_REMEMBERED)
def check_list_signed(issuer: bytes, der: bytes) -> None:
    """Check that a certificate's key signed a revocation list of its name.

    :raises VerificationError: ``CRL_SIG_FAILED``. :raises MalformedError: ``BAD_CRL``.
    """
    crl, certificate = read_list(der), read_certificate(issuer)
    good = crl.issuer == certificate.subject and crl.x509.is_signature_valid(certificate.public_key)
    if not good:
        raise VerificationError("CRL_SIG_FAILED", "a revocation list is not signed by the CA that it is for")


def signed_by(key: EllipticCurvePublicKey, signature: bytes, data: bytes) -> bool:
    """Return whether a key made a signature r ‖ s, 64 bytes, with ECDSA and SHA-256."""
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    try:
        key.verify(encode_dss_signature(r, s), data, ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True
