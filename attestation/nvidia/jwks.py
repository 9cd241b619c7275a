"""Reads the key set of NVIDIA's Remote Attestation Service, and decides which of its keys count.

A key set says nothing of itself: whoever carries it could put keys of his own in it. So a key counts
only through the certificate beside it (``x5c``, RFC 7517, section 4.7): it holds the same key, is
valid, may sign, and was issued by a pinned certificate.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP384R1,
    EllipticCurvePublicKey,
    EllipticCurvePublicNumbers,
)
from cryptography.x509.oid import NameOID

from ...wire.encoding import sha256
from ...wire.errors import EndorsementsError, MalformedError, VerificationError
from ..jwt import read_base64url
from ..strict_json import read_json_object

MAX_JWKS_BYTES: Final = 262_144  # recorded sets have 91 KB
MAX_KEYS: Final = 256
_COORDINATE: Final = 48
_MAX_CERTIFICATE_BYTES: Final = 4_096
_MAX_KID: Final = 256
# In every certificate of the recorded key sets, with the architecture after it.
_SERVICE_NAME: Final = "NVIDIA Attestation Service GPU"


@dataclass(frozen=True, slots=True)
class NrasKey:
    """One key of the set, not yet believed.

    :param x5c: DER, the key's own certificate first.
    """

    public_key: EllipticCurvePublicKey = field(repr=False)
    x5c: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class VerifiedKey:
    """A key that a pinned certificate vouches for.

    :param not_before: :param not_after: when both certificates are valid, Unix seconds.
    :param issuer: SHA-256 of the pinned certificate, 32 bytes.
    """

    public_key: EllipticCurvePublicKey = field(repr=False)
    not_before: int
    not_after: int
    issuer: bytes


def read_jwks(data: bytes) -> dict[str, NrasKey]:
    """Read a key set; keys of other kinds are left aside.

    :raises MalformedError: ``BAD_JWKS``, or as :func:`~..strict_json.read_json_object`.
    """
    entries = read_json_object(data, max_bytes=MAX_JWKS_BYTES).get("keys")
    if not isinstance(entries, list) or not 1 <= len(entries) <= MAX_KEYS:
        raise _bad()
    keys: dict[str, NrasKey] = {}
    for entry in entries:
        match entry:
            case {
                "kty": "EC",
                "crv": "P-384",
                "kid": str() as kid,
                "x": str() as x,
                "y": str() as y,
                "x5c": [str() as leaf, str() as issuer, *_],
            } if 1 <= len(kid) <= _MAX_KID and kid not in keys:
                keys[kid] = NrasKey(_point(x, y), (_certificate(leaf), _certificate(issuer)))
            case {"kty": "EC", "crv": "P-384"}:
                raise _bad()
    return keys


def verify_key(key: NrasKey, issuers: tuple[bytes, ...], now: int) -> VerifiedKey:
    """Check that a key counts at a time.

    1. its issuer's certificate is pinned;
    2. both certificates are valid at ``now``;
    3. the issuer is a CA that may sign certificates, and signed the key's, which may sign data and no more,
       and is named as the service's: the same issuer may certify servers of other kinds;
    4. the certificate holds the key itself.

    :raises EndorsementsError: ``NO_ROOTS``: nothing is pinned.
    :raises MalformedError: ``BAD_CERTIFICATE``.
    :raises VerificationError: ``UNKNOWN_ROOT``, ``CERTIFICATE_EXPIRED``, ``CERTIFICATE_NOT_YET_VALID``,
        ``NOT_A_CA``, ``KEY_USAGE``, ``CERTIFICATE_PROFILE``, ``CHAIN_BROKEN`` or ``BAD_KEY``.
    """
    if not issuers:
        raise EndorsementsError("NO_ROOTS", "no trust anchor is configured for NRAS")
    leaf_der, issuer_der = key.x5c
    if sha256(issuer_der) not in issuers:  # 1
        raise VerificationError("UNKNOWN_ROOT", "the key's issuer is not pinned")
    leaf, issuer = _load(leaf_der), _load(issuer_der)
    starts = [int(one.not_valid_before_utc.timestamp()) for one in (leaf, issuer)]
    ends = [int(one.not_valid_after_utc.timestamp()) for one in (leaf, issuer)]
    if now < max(starts):  # 2
        raise VerificationError("CERTIFICATE_NOT_YET_VALID", "the key's certificate is not valid yet")
    if now > min(ends):
        raise VerificationError("CERTIFICATE_EXPIRED", "the key's certificate has expired")
    _check_authority(issuer)  # 3
    _check_signer(leaf)
    try:
        leaf.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError):
        raise VerificationError(
            "CHAIN_BROKEN", "the key's certificate was not issued by the pinned one"
        ) from None
    if leaf.public_key() != key.public_key:  # 4
        raise VerificationError("BAD_KEY", "the key is not the one that its certificate holds")
    return VerifiedKey(key.public_key, max(starts), min(ends), sha256(issuer_der))


def _check_authority(issuer: x509.Certificate) -> None:
    basic, usage = _uses(issuer)
    if basic is None or not basic.ca:
        raise VerificationError("NOT_A_CA", "the pinned certificate is no CA")
    if usage is None or not usage.key_cert_sign:
        raise VerificationError("KEY_USAGE", "the pinned certificate may not sign certificates")


def _check_signer(leaf: x509.Certificate) -> None:
    basic, usage = _uses(leaf)
    if (basic is not None and basic.ca) or usage is None or not usage.digital_signature:
        raise VerificationError("KEY_USAGE", "the key's certificate may not sign data, or is a CA")
    names = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(names) != 1 or not str(names[0].value).startswith(_SERVICE_NAME):
        raise VerificationError("CERTIFICATE_PROFILE", "the key's certificate is not the service's")


def _uses(certificate: x509.Certificate) -> tuple[x509.BasicConstraints | None, x509.KeyUsage | None]:
    values = [extension.value for extension in certificate.extensions]
    basic = next((one for one in values if isinstance(one, x509.BasicConstraints)), None)
    return basic, next((one for one in values if isinstance(one, x509.KeyUsage)), None)


def _load(der: bytes) -> x509.Certificate:
    try:
        certificate = x509.load_der_x509_certificate(der)
        # Read here what is read later: the library parses lazily.
        _ = certificate.extensions, certificate.public_key(), certificate.version
        _ = certificate.subject, certificate.issuer, certificate.signature_hash_algorithm
        _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if certificate.serial_number <= 0:
            raise ValueError("serial number")
    except Exception:  # hostile bytes raise ValueError, warnings and a dozen other kinds in the library
        raise MalformedError("BAD_CERTIFICATE", "a certificate cannot be read") from None
    return certificate


def _point(x: str, y: str) -> EllipticCurvePublicKey:
    octets = [read_base64url(part.encode("ascii", "replace")) for part in (x, y)]
    if any(len(part) != _COORDINATE for part in octets):
        raise _bad()
    numbers = [int.from_bytes(part, "big") for part in octets]
    try:
        return EllipticCurvePublicNumbers(numbers[0], numbers[1], SECP384R1()).public_key()
    except ValueError:
        raise _bad() from None


def _certificate(text: str) -> bytes:
    try:
        octets = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _bad() from None
    if not 1 <= len(octets) <= _MAX_CERTIFICATE_BYTES:
        raise _bad()
    return octets


def _bad() -> MalformedError:
    return MalformedError("BAD_JWKS", "a key set is out of form")
