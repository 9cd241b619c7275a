"""Issues AIR v1 receipts: claims in, COSE_Sign1 out, and nothing between that can differ.

The protected header of every receipt is the same six bytes, so both the
Sig_structure (RFC 9052, section 4.4) and the message are a constant, a length and
the payload. Tests hold the result equal to pycose's.
"""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..wire.encoding import encode
from .claims import Claims, encode_claims

MAX_RECEIPT_BYTES: Final = 65_536
CONTENT_TYPE: Final = 61
PROTECTED: Final = encode({1: -8, 3: CONTENT_TYPE})
_SIG_STRUCTURE: Final = b"\x84" + encode("Signature1") + encode(PROTECTED) + encode(b"")
MESSAGE_HEAD: Final = b"\xd2\x84" + encode(PROTECTED) + encode({})
SIGNATURE_HEAD: Final = b"\x58\x40"


def issue(claims: Claims, key: Ed25519PrivateKey) -> bytes:
    """Return a signed AIR v1 receipt: a tagged COSE_Sign1 with the media type ``application/eat+cwt``.

    :param key: the receipt key that was made inside this TEE and is bound to its evidence.
    :raises MalformedError: the code of the first rule that a claim breaks; nothing is signed then.
    """
    payload = encode(encode_claims(claims))
    return b"".join((MESSAGE_HEAD, payload, SIGNATURE_HEAD, key.sign(_SIG_STRUCTURE + payload)))


def signed_bytes(payload: bytes) -> bytes:
    """Return the Sig_structure that the signature of a receipt with this payload covers."""
    return _SIG_STRUCTURE + encode(payload)
