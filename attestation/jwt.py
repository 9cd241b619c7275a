"""Reads compact JSON Web Tokens strictly, and checks their signatures with one named algorithm.

Reading and checking are apart: a reader must see the header to find the key, and
must not believe it. The algorithm is always the caller's, never the token's; only
public keys with types are taken, so that no octets can pass as a key of another
algorithm (RFC 8725, sections 2.1 and 3.1).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

import jwt as pyjwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from ..wire.errors import MalformedError, VerificationError
from .strict_json import read_json_object

DEFAULT_MAX_TOKEN_BYTES: Final = 65_536
MAX_SIGNATURE_BYTES: Final = 1_024  # RSA of 8,192 bits
MIN_RSA_BITS: Final = 2_048  # RFC 7518, section 3.3
MAX_RSA_BITS: Final = 8_192

Algorithm = Literal["RS256", "ES384"]
PublicKey = RSAPublicKey | EllipticCurvePublicKey


@dataclass(frozen=True, slots=True)
class Jwt:
    """A well-formed token whose signature has *not* been checked.

    :param header: :param claims: as the token has them; no name stands twice.
    :param signing_input: the bytes that are signed (RFC 7515, section 5.1).
    """

    header: Mapping[str, object] = field(repr=False)
    claims: Mapping[str, object] = field(repr=False)
    signing_input: bytes = field(repr=False)
    signature: bytes = field(repr=False)


def read_jwt(data: bytes, *, max_bytes: int = DEFAULT_MAX_TOKEN_BYTES) -> Jwt:
    """Read a token in compact serialisation (RFC 7515, section 7.1); nothing may stand around it.

    :param max_bytes: of the whole token.
    :raises MalformedError: ``TOO_LARGE``, ``BAD_JWT`` (not three parts, or no signature), ``BAD_BASE64``,
        ``TOO_DEEP``, ``DUPLICATE_KEY`` or ``BAD_JSON``.
    """
    if len(data) > max_bytes:
        raise MalformedError("TOO_LARGE", f"the token has more than {max_bytes} bytes")
    parts = bytes(data).split(b".")
    if len(parts) != 3 or not all(parts):
        raise MalformedError("BAD_JWT", "a signed token has three parts")
    header, claims, signature = (read_base64url(part) for part in parts)
    if len(signature) > MAX_SIGNATURE_BYTES:
        raise MalformedError("TOO_LARGE", f"a signature has more than {MAX_SIGNATURE_BYTES} bytes")
    return Jwt(
        header=read_json_object(header, max_bytes=max_bytes),
        claims=read_json_object(claims, max_bytes=max_bytes),
        signing_input=parts[0] + b"." + parts[1],
        signature=signature,
    )


def check_signature(token: Jwt, key: PublicKey, algorithm: Algorithm) -> None:
    """Check that a key signed a token, with the one algorithm that the caller names.

    :param key: RSA of 2,048 to 8,192 bits for ``"RS256"``, P-384 for ``"ES384"``.
    :raises VerificationError: ``BAD_ALG`` (the header names another), ``BAD_KEY`` (the key is of another
        kind, or weak) or ``SIG_FAILED``.
    """
    if token.header.get("alg") != algorithm:
        raise VerificationError("BAD_ALG", f"the token's algorithm is not {algorithm}")
    if not _fits(key, algorithm):
        raise VerificationError("BAD_KEY", f"the key cannot check {algorithm}")
    # The registry's class for one name; PyJWT's own reading of the header is not asked.
    verifier = pyjwt.get_algorithm_by_name(algorithm)
    if not verifier.verify(token.signing_input, key, token.signature):
        raise VerificationError("SIG_FAILED", "the token's signature does not match")


def read_base64url(text: bytes) -> bytes:
    """Return the octets of base64url without padding (RFC 7515, section 2), in its one canonical form.

    :raises MalformedError: ``BAD_BASE64``.
    """
    try:
        octets = base64.b64decode(text + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise _bad_base64() from None
    # Four spellings of the last character can mean the same octets; one of them is canonical.
    if base64.urlsafe_b64encode(octets).rstrip(b"=") != text:
        raise _bad_base64()
    return octets


def _bad_base64() -> MalformedError:
    return MalformedError("BAD_BASE64", "a part is not canonical base64url without padding")


def _fits(key: PublicKey, algorithm: Algorithm) -> bool:
    if algorithm == "RS256":
        return isinstance(key, RSAPublicKey) and MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS
    return isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP384R1)
