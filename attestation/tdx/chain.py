"""Certificates of Intel's provisioning PKI: chains to a pinned root, and revocation lists.

The profile is narrow on purpose (Intel SGX PCK Certificate and Certificate Revocation
List Profile Specification): ECDSA P-256 with SHA-256 throughout, X.509 version 3, no
critical extension but basicConstraints and keyUsage.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID, SignatureAlgorithmOID

from ...wire.encoding import sha256
from ...wire.errors import EndorsementsError, MalformedError, VerificationError

MAX_CERTIFICATES: Final = 4
MAX_REMEMBERED: Final = 256
_UNDERSTOOD: Final = (ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE)


@dataclass(frozen=True, slots=True)
class Certificate:
    """What the walk needs of a certificate, read once and with types."""

    der: bytes = field(repr=False)
    x509: x509.Certificate
    public_key: EllipticCurvePublicKey
    serial: int
    not_before: int
    not_after: int
    is_ca: bool
    path_length: int | None
    usage: x509.KeyUsage | None


@dataclass(frozen=True, slots=True)
class RevocationList:
    """A CRL as its issuer signed it.

    :param issued_at: :param next_update: Unix seconds.
    """

    x509: x509.CertificateRevocationList = field(repr=False)
    issued_at: int
    next_update: int


@lru_cache(MAX_REMEMBERED)
def read_chain(pem: bytes) -> tuple[Certificate, ...]:
    """Read a PEM chain, the leaf first.

    :raises MalformedError: ``BAD_CERTIFICATE``. :raises VerificationError: ``CERTIFICATE_PROFILE``.
    """
    # Quotes end the text with a zero, as C does.
    try:
        found = x509.load_pem_x509_certificates(pem.rstrip(b"\0"))
        if not 1 <= len(found) <= MAX_CERTIFICATES:
            raise ValueError("length")
    except Exception:  # hostile bytes raise many kinds in the library
        raise MalformedError("BAD_CERTIFICATE", "a chain of certificates cannot be read") from None
    return tuple(map(_read, found))


@lru_cache(MAX_REMEMBERED)
def read_crl(der: bytes) -> RevocationList:
    """Read a certificate revocation list in DER.

    :raises MalformedError: ``BAD_CRL``.
    """
    try:
        found = x509.load_der_x509_crl(der)
        if found.next_update_utc is None or found.signature_algorithm_oid != _ALGORITHM:
            raise ValueError("profile")
        issued_at = int(found.last_update_utc.timestamp())
        return RevocationList(found, issued_at, int(found.next_update_utc.timestamp()))
    except Exception:  # hostile bytes raise many kinds in the library
        raise MalformedError("BAD_CRL", "a revocation list cannot be read") from None


_ALGORITHM: Final = SignatureAlgorithmOID.ECDSA_WITH_SHA256


def _read(certificate: x509.Certificate) -> Certificate:
    try:
        if certificate.serial_number <= 0:  # the library only warns (RFC 5280, section 4.1.2.2)
            raise ValueError("serial number")
        extensions = {extension.oid: extension for extension in certificate.extensions}
        key = certificate.public_key()
        algorithm, version = certificate.signature_algorithm_oid, certificate.version
        not_before = int(certificate.not_valid_before_utc.timestamp())
        not_after = int(certificate.not_valid_after_utc.timestamp())
        der = certificate.public_bytes(Encoding.DER)
    except Exception:  # hostile bytes raise many kinds in the library
        raise MalformedError("BAD_CERTIFICATE", "a certificate cannot be read") from None
    good_key = isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1)
    strange = any(extension.critical and oid not in _UNDERSTOOD for oid, extension in extensions.items())
    if version is not x509.Version.v3 or algorithm != _ALGORITHM or not good_key or strange:
        raise VerificationError("CERTIFICATE_PROFILE", "a certificate does not keep to Intel's profile")
    constraints = extensions.get(ExtensionOID.BASIC_CONSTRAINTS)
    usage = extensions.get(ExtensionOID.KEY_USAGE)
    basic = None if constraints is None else constraints.value
    assert isinstance(key, EllipticCurvePublicKey)  # noqa: S101 - held above
    return Certificate(
        der=der,
        x509=certificate,
        public_key=key,
        serial=certificate.serial_number,
        not_before=not_before,
        not_after=not_after,
        is_ca=isinstance(basic, x509.BasicConstraints) and basic.ca,
        path_length=basic.path_length if isinstance(basic, x509.BasicConstraints) else None,
        usage=usage.value if usage is not None and isinstance(usage.value, x509.KeyUsage) else None,
    )


def verify_chain(chain: tuple[Certificate, ...], roots: Collection[bytes], now: int) -> None:
    """Verify a chain at a time.

    1. the last certificate is a pinned root;
    2. every certificate is valid at ``now``;
    3. all but the first are CAs that may sign certificates, within their path lengths;
    4. the first is no CA and may sign data;
    5. each was issued by the one after it, by name and by signature.

    :param roots: SHA-256 fingerprints. :param now: Unix seconds.
    :raises EndorsementsError: ``NO_ROOTS``.
    :raises VerificationError: ``UNKNOWN_ROOT``, ``CERTIFICATE_EXPIRED``, ``CERTIFICATE_NOT_YET_VALID``,
        ``NOT_A_CA``, ``KEY_USAGE``, ``PATH_LENGTH`` or ``CHAIN_BROKEN``.
    """
    if not roots:
        raise EndorsementsError("NO_ROOTS", "no trust anchor is configured for this platform")
    if sha256(chain[-1].der) not in roots:  # 1
        raise VerificationError("UNKNOWN_ROOT", "the chain does not end at a pinned root")
    for certificate in chain:  # 2
        if now < certificate.not_before:
            raise VerificationError("CERTIFICATE_NOT_YET_VALID", "a certificate is not valid yet")
        if now > certificate.not_after:
            raise VerificationError("CERTIFICATE_EXPIRED", "a certificate has expired")
    leaf, *authorities = chain
    for below, certificate in enumerate(authorities):  # 3
        _check_authority(certificate, below)
    if leaf.is_ca or leaf.usage is None or not leaf.usage.digital_signature:  # 4
        raise VerificationError("KEY_USAGE", "the signing certificate may not sign data")
    for issued, issuer in pairwise(chain):  # 5
        _check_issued(issued, issuer)


def _check_authority(certificate: Certificate, authorities_below: int) -> None:
    if not certificate.is_ca:
        raise VerificationError("NOT_A_CA", "an issuing certificate is no CA")
    if certificate.usage is None or not certificate.usage.key_cert_sign:
        raise VerificationError("KEY_USAGE", "a CA may not sign certificates")
    if certificate.path_length is not None and certificate.path_length < authorities_below:
        raise VerificationError("PATH_LENGTH", "the chain is longer than one of its CAs allows")


def _check_issued(issued: Certificate, issuer: Certificate) -> None:
    try:
        issued.x509.verify_directly_issued_by(issuer.x509)
    except (InvalidSignature, ValueError, TypeError):
        raise VerificationError("CHAIN_BROKEN", "a certificate was not issued by the one after it") from None


def check_not_revoked(
    certificate: Certificate, issuer: Certificate, crl: RevocationList, now: int, *, what: str
) -> None:
    """Hold a certificate against its issuer's revocation list.

    :param what: whose list, for messages.
    :raises VerificationError: ``CRL_SIGNATURE``: the list is not the issuer's; ``CERTIFICATE_REVOKED``.
    :raises EndorsementsError: ``COLLATERAL_EXPIRED`` or ``COLLATERAL_NOT_YET_VALID``.
    """
    check_window(crl.issued_at, crl.next_update, now, what=what)
    try:
        genuine = crl.x509.issuer == issuer.x509.subject and crl.x509.is_signature_valid(issuer.public_key)
    except (ValueError, TypeError):
        genuine = False
    if not genuine:
        raise VerificationError("CRL_SIGNATURE", f"the revocation list of {what} is not its issuer's")
    if crl.x509.get_revoked_certificate_by_serial_number(certificate.serial) is not None:
        raise VerificationError("CERTIFICATE_REVOKED", f"a certificate of {what} was revoked")


def check_window(begin: int, end: int, now: int, *, what: str) -> None:
    """Refuse collateral outside its time.

    :raises EndorsementsError: ``COLLATERAL_EXPIRED`` or ``COLLATERAL_NOT_YET_VALID``.
    """
    if now < begin:
        raise EndorsementsError("COLLATERAL_NOT_YET_VALID", f"collateral ({what}) is of a later time")
    if now > end:
        raise EndorsementsError("COLLATERAL_EXPIRED", f"collateral ({what}) has expired: fetch it again")


def check_ecdsa(key: EllipticCurvePublicKey, signature: bytes, data: bytes, *, code: str, what: str) -> None:
    """Check an ECDSA P-256 SHA-256 signature of the form r ‖ s, 64 bytes.

    :raises VerificationError: with ``code``.
    """
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    try:
        key.verify(encode_dss_signature(r, s), data, ECDSA(SHA256()))
    except (InvalidSignature, ValueError):
        raise VerificationError(code, f"the signature of {what} does not match") from None
