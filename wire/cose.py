"""COSE_Sign1 with Ed25519 (RFC 9052, RFC 9053): the only door to pycose.

Strict parsing of ours comes first: the outer tag, deterministic encoding and a
closed shape are checked before any library sees the bytes (FACTS: the library
accepts duplicates, long forms and trailing bytes). The Sig_structure is built
here directly, because the library's object layer costs three times the
signature itself; :func:`sign1_with_library` and :func:`verify_with_library`
exist so that tests hold the two paths equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from .encoding import Tag, decode, encode
from .errors import MalformedError, VerificationError

if TYPE_CHECKING:
    from pycose.keys.cosekey import CoseKey

COSE_SIGN1_TAG: Final = 18
ALG_EDDSA: Final = -8
HEADER_ALG: Final = 1
HEADER_CONTENT_TYPE: Final = 3
MAX_SIGN1_BYTES: Final = 65_536

# Group order L (RFC 8032, section 5.1) and field prime.
_L: Final = 2**252 + 27742317777372353535851937790883648493
_P: Final = 2**255 - 19


def _little(text: str) -> int:
    return int.from_bytes(bytes.fromhex(text), "little")


# y coordinates of the eight points of small order; both signs of x are meant. Tests recompute them.
_SMALL_ORDER_Y: Final = frozenset(
    (
        0,
        1,
        _P - 1,
        int.from_bytes(
            bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
        ),
        int.from_bytes(
            bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"), "little"
        ),
    )
)
_Y_MASK: Final = (1 << 255) - 1


@dataclass(frozen=True, slots=True)
class Sign1:
    """A parsed COSE_Sign1 whose signature has *not* been checked yet."""

    protected: dict[object, object]
    protected_bytes: bytes
    unprotected: dict[object, object]
    payload: bytes
    signature: bytes


def sig_structure(protected_bytes: bytes, payload: bytes, external_aad: bytes = b"") -> bytes:
    """Return the bytes that a COSE_Sign1 signature covers (Sig_structure, RFC 9052, section 4.4)."""
    return encode(["Signature1", protected_bytes, external_aad, payload])


def sign1(
    payload: bytes,
    key: Ed25519PrivateKey,
    *,
    protected: dict[int, object],
    external_aad: bytes = b"",
    tagged: bool = True,
) -> bytes:
    """Return a COSE_Sign1 (RFC 9052, section 4.2) with an empty unprotected header.

    :param protected: the protected header; must hold ``{1: -8}`` (EdDSA).
    :param tagged: whether CBOR tag 18 stands in front.
    :raises MalformedError: ``BAD_ALG`` when the header names another algorithm.
    """
    if protected.get(HEADER_ALG) != ALG_EDDSA:
        raise MalformedError("BAD_ALG", "only EdDSA is signed here")
    protected_bytes = encode(protected)
    signature = key.sign(sig_structure(protected_bytes, payload, external_aad))
    message: object = [protected_bytes, {}, payload, signature]
    return encode(Tag(COSE_SIGN1_TAG, message) if tagged else message)


def decode_sign1(data: bytes, *, max_bytes: int = MAX_SIGN1_BYTES) -> Sign1:
    """Parse a tagged, deterministically encoded COSE_Sign1 (RFC 9052, section 4.2).

    :raises MalformedError: the codes of :func:`.encoding.decode`, and ``COSE_SHAPE`` when it is no
        COSE_Sign1 with an embedded payload.
    """
    outer = decode(data, max_bytes=max_bytes, tags=(COSE_SIGN1_TAG,))
    if not isinstance(outer, Tag):
        raise MalformedError("COSE_SHAPE", "tag 18 is missing")
    parts = outer.value
    if not isinstance(parts, list) or len(parts) != 4:
        raise MalformedError("COSE_SHAPE", "a COSE_Sign1 has four parts")
    protected_bytes, unprotected, payload, signature = parts
    if not (isinstance(protected_bytes, bytes) and isinstance(unprotected, dict)):
        raise MalformedError("COSE_SHAPE", "the headers have the wrong type")
    if not (isinstance(payload, bytes) and isinstance(signature, bytes)):
        raise MalformedError("COSE_SHAPE", "payload or signature has the wrong type")
    protected = decode(protected_bytes, max_bytes=max_bytes) if protected_bytes else {}
    if not isinstance(protected, dict):
        raise MalformedError("COSE_SHAPE", "the protected header is not a map")
    return Sign1(protected, protected_bytes, unprotected, payload, signature)


def _check_point(encoded: bytes) -> None:
    y = int.from_bytes(encoded, "little") & _Y_MASK
    if y >= _P or y in _SMALL_ORDER_Y:
        raise VerificationError("SIG_FAILED", "a point is not canonical or of small order")


@lru_cache(maxsize=1024)
def _public_key(encoded: bytes) -> Ed25519PublicKey:
    """Return a key whose point was checked; one worker signs many messages."""
    _check_point(encoded)
    return Ed25519PublicKey.from_public_bytes(encoded)


def verify_ed25519(public_key: bytes, message: bytes, signature: bytes) -> None:
    """Verify an Ed25519 signature strictly (RFC 8032, section 5.1.7, with the checks below).

    Beyond the equation: S < L, canonical encodings of A and R, neither of small order.

    :param public_key: 32 bytes. :param signature: 64 bytes.
    :raises VerificationError: ``BAD_SIG_LENGTH`` or ``SIG_FAILED``.
    """
    if len(signature) != 64:
        raise VerificationError("BAD_SIG_LENGTH", "an Ed25519 signature has 64 bytes")
    if len(public_key) != 32:
        raise VerificationError("SIG_FAILED", "an Ed25519 public key has 32 bytes")
    if int.from_bytes(signature[32:], "little") >= _L:
        raise VerificationError("SIG_FAILED", "S is not reduced")
    _check_point(signature[:32])
    try:
        _public_key(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        raise VerificationError("SIG_FAILED", "the signature does not match") from None


def verify_sign1(message: Sign1, public_key: bytes, external_aad: bytes = b"") -> None:
    """Verify the signature of a parsed COSE_Sign1, strictly.

    :raises VerificationError: ``BAD_ALG``, ``BAD_SIG_LENGTH`` or ``SIG_FAILED``.
    """
    if message.protected.get(HEADER_ALG) != ALG_EDDSA:
        raise VerificationError("BAD_ALG", "the algorithm is not EdDSA")
    signed = sig_structure(message.protected_bytes, message.payload, external_aad)
    verify_ed25519(public_key, signed, message.signature)


def sign1_with_library(payload: bytes, key: Ed25519PrivateKey, protected: dict[int, object]) -> bytes:
    """Sign through pycose; the counterpart that tests hold :func:`sign1` equal to.

    :raises MalformedError: ``BAD_ALG`` for anything but EdDSA with an optional content type.
    """
    from pycose.headers import Algorithm, ContentType
    from pycose.messages.sign1message import Sign1Message

    if protected.get(HEADER_ALG) != ALG_EDDSA:
        raise MalformedError("BAD_ALG", "only EdDSA is signed here")
    from pycose.algorithms import EdDSA

    headers: dict[object, object] = {Algorithm: EdDSA}
    if HEADER_CONTENT_TYPE in protected:
        headers[ContentType] = protected[HEADER_CONTENT_TYPE]
    message = Sign1Message(phdr=headers, payload=payload)
    message.key = _library_key(key.private_bytes_raw(), key.public_key().public_bytes_raw())
    return bytes(message.encode())


def verify_with_library(data: bytes, public_key: bytes) -> bool:
    """Verify through pycose, after our strict parser has accepted ``data``.

    :raises MalformedError: as :func:`decode_sign1`.
    """
    from pycose.messages.sign1message import Sign1Message

    decode_sign1(data)
    message = Sign1Message.decode(data)
    message.key = _library_key(None, public_key)
    return bool(message.verify_signature())


def _library_key(private: bytes | None, public: bytes) -> CoseKey:
    from pycose.keys.curves import Ed25519
    from pycose.keys.okp import OKPKey

    return OKPKey(crv=Ed25519, x=public, d=private or b"")
