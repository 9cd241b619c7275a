"""Asks OCSP answers that were fetched elsewhere whether certificates were revoked (RFC 6960).

An answer counts only for the certificate that it names, by serial number and by the hashes of its
issuer (section 4.1.1), signed by that issuer or by a responder that it appointed (section 4.2.2.2),
and between its two times (section 4.2.2.1). What an answer says against a certificate is never
outweighed by another that says it is good, nor by being old: revocations are not taken back, and a
certificate on hold must be shown to be good again by the vendor leaving the older answer out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from ...wire.errors import EndorsementsError, MalformedError, VerificationError

MAX_ANSWER_BYTES: Final = 16_384
MAX_SINGLE_ANSWERS: Final = 32
MAX_REMEMBERED: Final = 128
CLOCK_SKEW_S: Final = 300
# An answer that names no end holds for a day (RFC 6960, section 2.4, leaves it to the one who asks).
DEFAULT_LIFE_S: Final = 86_400
_MIN_RSA_BITS: Final = 2_048
# SHA-1 only to recognise a certificate, as most responders do; never under a signature.
_NAMING: Final = (hashes.SHA1, hashes.SHA256, hashes.SHA384, hashes.SHA512)
_SIGNING: Final = (hashes.SHA256, hashes.SHA384, hashes.SHA512)


@dataclass(frozen=True, slots=True)
class Window:
    """From when until when a statement holds, Unix seconds."""

    not_before: int
    not_after: int


def check_answer(data: bytes) -> bytes:
    """Return an answer that can be read and says something.

    :raises MalformedError: ``BAD_OCSP``.
    """
    _read(data)
    return data


def check_revocation(certificate: bytes, issuer: bytes, answers: Sequence[bytes], now: int) -> Window | None:
    """Say until when a certificate is known to be good; None where no answer is about it.

    :param certificate: :param issuer: DER, both of a verified chain. :param now: Unix seconds.
    :raises MalformedError: ``BAD_OCSP`` or ``BAD_CERTIFICATE``.
    :raises VerificationError: ``CERTIFICATE_REVOKED``, ``CERTIFICATE_ON_HOLD``, ``CERTIFICATE_UNKNOWN``, or
        ``OCSP_SIG_FAILED``: an answer about it is not by its issuer or an appointed responder.
    :raises EndorsementsError: ``COLLATERAL_EXPIRED`` or ``COLLATERAL_NOT_YET_VALID``: no answer about it
        holds at this time.
    """
    subject, authority = _load(certificate), _load(issuer)
    windows: list[Window] = []
    for data in answers:
        response, singles = _read(data)
        for single in singles:
            if _is_about(single, subject, authority):
                _check_signed(response, authority, now)
                _check_good(single)
                windows.append(_window(single))
    if not windows:
        return None
    current = [one for one in windows if one.not_before <= now + CLOCK_SKEW_S and now <= one.not_after]
    if current:
        return max(current, key=lambda one: one.not_after)
    if all(one.not_before > now for one in windows):
        raise EndorsementsError("COLLATERAL_NOT_YET_VALID", "an OCSP answer is not valid yet at this time")
    raise EndorsementsError("COLLATERAL_EXPIRED", "an OCSP answer has expired at this time")


@lru_cache(MAX_REMEMBERED)
def _read(data: bytes) -> tuple[ocsp.OCSPResponse, tuple[ocsp.OCSPSingleResponse, ...]]:
    """Read an answer; what it says is a fact of its bytes, and one verification asks it many times."""
    try:
        if len(data) > MAX_ANSWER_BYTES:
            raise ValueError("size")
        response = ocsp.load_der_ocsp_response(data)
        singles = tuple(response.responses)
        _ = response.signature, response.tbs_response_bytes, response.certificates
        for single in singles:
            _ = single.revocation_reason, single.hash_algorithm, _window(single)
    except Exception:  # hostile bytes raise ValueError, warnings and a dozen other kinds in the library
        raise MalformedError("BAD_OCSP", "an OCSP answer cannot be read, or says nothing") from None
    if not 1 <= len(singles) <= MAX_SINGLE_ANSWERS:
        raise MalformedError("BAD_OCSP", "an OCSP answer is about none, or too many certificates")
    return response, singles


def _load(der: bytes) -> x509.Certificate:
    try:
        certificate = x509.load_der_x509_certificate(der)
        _ = certificate.subject, certificate.public_key()  # parsed lazily
        return certificate
    except Exception:  # as above
        raise MalformedError("BAD_CERTIFICATE", "a certificate cannot be read") from None


def _is_about(single: ocsp.OCSPSingleResponse, subject: x509.Certificate, issuer: x509.Certificate) -> bool:
    if single.serial_number != subject.serial_number or not isinstance(single.hash_algorithm, _NAMING):
        return False
    key = _key_bits(issuer)
    return (
        _digest(single.hash_algorithm, issuer.subject.public_bytes()) == single.issuer_name_hash
        and _digest(single.hash_algorithm, key) == single.issuer_key_hash
    )


def _key_bits(certificate: x509.Certificate) -> bytes:
    """Return the key's bit string without its head, which is what RFC 6960 hashes."""
    key = certificate.public_key()
    if isinstance(key, EllipticCurvePublicKey):
        return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    if isinstance(key, RSAPublicKey):
        return key.public_bytes(Encoding.DER, PublicFormat.PKCS1)
    return b""


def _digest(algorithm: hashes.HashAlgorithm, data: bytes) -> bytes:
    digest = hashes.Hash(algorithm)
    digest.update(data)
    return digest.finalize()


def _check_signed(response: ocsp.OCSPResponse, issuer: x509.Certificate, now: int) -> None:
    signer = response.certificates[0] if response.certificates else issuer
    try:
        is_issuer = signer.public_key() == issuer.public_key()
        algorithm = response.signature_hash_algorithm
    except Exception:  # keys and algorithms that the library does not know, and more
        raise _unsigned() from None
    if not is_issuer:
        _check_appointed(signer, issuer, now)
    if not isinstance(algorithm, _SIGNING) or not _signs(signer, response, algorithm):
        raise _unsigned()


def _check_appointed(responder: x509.Certificate, issuer: x509.Certificate, now: int) -> None:
    """Check that the issuer made this responder, for this purpose, and that its time has not passed."""
    try:
        responder.verify_directly_issued_by(issuer)
        purposes = responder.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        start, end = _seconds(responder.not_valid_before_utc), _seconds(responder.not_valid_after_utc)
    except Exception:  # InvalidSignature, ExtensionNotFound, ValueError and more
        raise _unsigned() from None
    if ExtendedKeyUsageOID.OCSP_SIGNING not in purposes or not start <= now <= end:
        raise _unsigned()


def _signs(signer: x509.Certificate, response: ocsp.OCSPResponse, algorithm: hashes.HashAlgorithm) -> bool:
    key = signer.public_key()
    try:
        if isinstance(key, EllipticCurvePublicKey):
            key.verify(response.signature, response.tbs_response_bytes, ECDSA(algorithm))
            return True
        if isinstance(key, RSAPublicKey) and key.key_size >= _MIN_RSA_BITS:
            key.verify(response.signature, response.tbs_response_bytes, PKCS1v15(), algorithm)
            return True
    except (InvalidSignature, ValueError):
        pass
    return False


def _check_good(single: ocsp.OCSPSingleResponse) -> None:
    match single.certificate_status:
        case ocsp.OCSPCertStatus.GOOD:
            return
        case ocsp.OCSPCertStatus.REVOKED if single.revocation_reason is x509.ReasonFlags.certificate_hold:
            raise VerificationError("CERTIFICATE_ON_HOLD", "the vendor has put a certificate on hold")
        case ocsp.OCSPCertStatus.REVOKED:
            raise VerificationError("CERTIFICATE_REVOKED", "the vendor has revoked a certificate")
        case _:
            raise VerificationError(
                "CERTIFICATE_UNKNOWN", "the vendor's responder does not know a certificate"
            )


def _window(single: ocsp.OCSPSingleResponse) -> Window:
    start = _seconds(single.this_update_utc)
    end = single.next_update_utc
    return Window(start, start + DEFAULT_LIFE_S if end is None else _seconds(end))


def _seconds(time: datetime) -> int:
    return int(time.timestamp())


def _unsigned() -> VerificationError:
    return VerificationError("OCSP_SIG_FAILED", "an OCSP answer is not by the issuer or its responder")
