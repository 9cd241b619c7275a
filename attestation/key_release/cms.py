"""CMS EnvelopedData, as AWS KMS answers an attested call in ``CiphertextForRecipient``.

One profile of RFC 5652, section 6: ContentInfo of EnvelopedData, key transport by
RSAES-OAEP with SHA-256 and MGF1-SHA-256 (RFC 8017, section 7.1; RFC 4055), content
in AES-256-CBC with PKCS #7 padding (RFC 3565). AWS sends BER with indefinite
lengths, so :func:`open_enveloped` reads BER and :func:`make_enveloped` writes it.

EnvelopedData is not authenticated: it keeps the key from those who carry it, and
does not prove who made it. TLS to the KMS, the birth certificate of a fleet key
and the AEAD of a model package do that.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ...wire.encoding import sha256
from ...wire.errors import KeyReleaseError, MalformedError
from . import ber

# KMS's CiphertextForRecipient holds at most 6144 bytes (AWS KMS API reference).
MAX_CMS_BYTES: Final = 6144
MAX_RECIPIENTS: Final = 4

OID_DATA: Final = bytes.fromhex("2a864886f70d010701")
OID_ENVELOPED_DATA: Final = bytes.fromhex("2a864886f70d010703")
OID_OAEP: Final = bytes.fromhex("2a864886f70d010107")
OID_MGF1: Final = bytes.fromhex("2a864886f70d010108")
OID_PSPECIFIED: Final = bytes.fromhex("2a864886f70d010109")
OID_SHA256: Final = bytes.fromhex("608648016503040201")
OID_AES256_CBC: Final = bytes.fromhex("60864801650304012a")

_CONTEXT_0, _CONTEXT_1, _CONTEXT_2 = 0xA0, 0xA1, 0xA2
_IMPLICIT_0: Final = 0x80
_BLOCK_BITS: Final = 128

_OAEP: Final = padding.OAEP(mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=None)


def open_enveloped(cms: bytes, private_key: RSAPrivateKey) -> bytes:
    """Return the plaintext of an EnvelopedData made for ``private_key``.

    :param cms: ContentInfo in BER or DER, at most 6144 bytes.
    :raises KeyReleaseError: ``CMS_MALFORMED``, ``CMS_UNSUPPORTED`` (another algorithm or recipient
        kind) or ``CMS_NOT_OPENED``, which is one code for every failure that a key takes part in.
    """
    try:
        wrapped_key, iv, ciphertext = _parse(cms)
    except MalformedError:
        raise KeyReleaseError("CMS_MALFORMED", "the KMS's envelope is malformed") from None
    try:
        content_key = private_key.decrypt(wrapped_key, _OAEP)
        decryptor = Cipher(algorithms.AES256(content_key), modes.CBC(iv)).decryptor()
        padded = decryptor.update(ciphertext) + decryptor.finalize()
        unpadder = PKCS7(_BLOCK_BITS).unpadder()
        return unpadder.update(padded) + unpadder.finalize()
    except ValueError:
        raise KeyReleaseError("CMS_NOT_OPENED", "the KMS's envelope could not be opened") from None


def make_enveloped(plaintext: bytes, public_key: RSAPublicKey) -> bytes:
    """Return an EnvelopedData for ``public_key`` in the form that AWS KMS sends (BER).

    The recipient is named by the SHA-256 of its SubjectPublicKeyInfo.
    """
    content_key, iv = os.urandom(32), os.urandom(16)
    padder = PKCS7(_BLOCK_BITS).padder()
    padded = padder.update(plaintext) + padder.finalize()
    encryptor = Cipher(algorithms.AES256(content_key), modes.CBC(iv)).encryptor()
    ciphertext = encryptor.update(padded) + encryptor.finalize()
    spki = public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return assemble(sha256(spki), public_key.encrypt(content_key, _OAEP), iv, (ciphertext,))


def assemble(
    recipient: bytes,
    wrapped_key: bytes,
    iv: bytes,
    pieces: tuple[bytes, ...],
    *,
    outer: Callable[..., bytes] = ber.indefinite,
) -> bytes:
    """Return the ContentInfo around ready ciphertexts (RFC 5652, sections 3 and 6.1).

    :param recipient: subject key identifier. :param pieces: the ciphertext in one or more pieces.
    :param outer: :func:`.ber.indefinite` as AWS does, or :func:`.ber.der` for definite lengths.
    """
    der = ber.der
    sha_256 = der(ber.SEQUENCE, _oid(OID_SHA256), der(ber.NULL))
    oaep = der(
        ber.SEQUENCE,
        der(_CONTEXT_0, sha_256),
        der(_CONTEXT_1, der(ber.SEQUENCE, _oid(OID_MGF1), sha_256)),
    )
    transport = der(
        ber.SEQUENCE,
        der(ber.INTEGER, b"\x02"),
        der(_IMPLICIT_0, recipient),
        der(ber.SEQUENCE, _oid(OID_OAEP), oaep),
        der(ber.OCTET_STRING, wrapped_key),
    )
    content = outer(
        ber.SEQUENCE,
        _oid(OID_DATA),
        der(ber.SEQUENCE, _oid(OID_AES256_CBC), der(ber.OCTET_STRING, iv)),
        outer(_CONTEXT_0, *(der(ber.OCTET_STRING, piece) for piece in pieces)),
    )
    enveloped = outer(ber.SEQUENCE, der(ber.INTEGER, b"\x02"), der(ber.SET, transport), content)
    return outer(ber.SEQUENCE, _oid(OID_ENVELOPED_DATA), outer(_CONTEXT_0, enveloped))


def _oid(value: bytes) -> bytes:
    return ber.der(ber.OBJECT_IDENTIFIER, value)


def _parse(cms: bytes) -> tuple[bytes, bytes, bytes]:
    """Return (wrapped content key, IV, ciphertext)."""
    kind, wrapper = ber.read(cms, max_bytes=MAX_CMS_BYTES).expect(ber.SEQUENCE, 2, 2)
    _supported(kind.value(ber.OBJECT_IDENTIFIER) == OID_ENVELOPED_DATA)
    (enveloped,) = wrapper.expect(_CONTEXT_0, 1, 1)
    parts = enveloped.expect(ber.SEQUENCE, 3, 5)
    parts[0].value(ber.INTEGER)
    # originatorInfo [0] and unprotectedAttrs [1] are optional; neither has a place in this profile.
    _supported(len(parts) == 3)
    recipients = parts[1].expect(ber.SET, 1, MAX_RECIPIENTS)
    _supported(len(recipients) == 1)
    iv, ciphertext = _content(parts[2])
    return _wrapped_key(recipients[0]), iv, ciphertext


def _wrapped_key(recipient: ber.Element) -> bytes:
    _supported(recipient.tag == ber.SEQUENCE)
    version, _, algorithm, wrapped = recipient.expect(ber.SEQUENCE, 4, 4)
    version.value(ber.INTEGER)
    oid, parameters = algorithm.expect(ber.SEQUENCE, 2, 2)
    _supported(oid.value(ber.OBJECT_IDENTIFIER) == OID_OAEP)
    _check_oaep(parameters)
    return wrapped.octets()


def _check_oaep(parameters: ber.Element) -> None:
    """Demand SHA-256 twice: the defaults of RFC 4055, section 4.1, are SHA-1."""
    fields = {field.tag: field.expect(field.tag, 1, 1)[0] for field in parameters.expect(ber.SEQUENCE, 0, 3)}
    _supported(_CONTEXT_0 in fields and _CONTEXT_1 in fields)
    _supported(_algorithm(fields[_CONTEXT_0])[0] == OID_SHA256)
    mgf, mgf_hash = _algorithm(fields[_CONTEXT_1])
    _supported(mgf == OID_MGF1 and mgf_hash is not None and _algorithm(mgf_hash)[0] == OID_SHA256)
    if _CONTEXT_2 in fields:
        source, label = _algorithm(fields[_CONTEXT_2])
        _supported(source == OID_PSPECIFIED and label is not None and label.octets() == b"")


def _algorithm(element: ber.Element) -> tuple[bytes, ber.Element | None]:
    parts = element.expect(ber.SEQUENCE, 1, 2)
    return parts[0].value(ber.OBJECT_IDENTIFIER), parts[1] if len(parts) == 2 else None


def _content(element: ber.Element) -> tuple[bytes, bytes]:
    kind, algorithm, encrypted = element.expect(ber.SEQUENCE, 3, 3)
    _supported(kind.value(ber.OBJECT_IDENTIFIER) == OID_DATA)
    oid, iv = _algorithm(algorithm)
    _supported(oid == OID_AES256_CBC)
    if iv is None or len(iv.octets()) != 16:
        raise MalformedError("BER_TYPE", "an IV has 16 bytes")
    return iv.octets(), encrypted.octets(_IMPLICIT_0)


def _supported(condition: bool) -> None:
    if not condition:
        raise KeyReleaseError("CMS_UNSUPPORTED", "the KMS's envelope uses something else than was asked for")
