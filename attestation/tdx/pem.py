"""Reads chains of certificates in PEM (RFC 7468), strictly."""

from __future__ import annotations

import base64
import binascii
import re
from functools import lru_cache
from typing import Final

from ...wire.errors import MalformedError

MAX_CERTIFICATE_BYTES: Final = 4_096  # a PCK certificate has some 1.3 KB
_MAX_CHAIN_BYTES: Final = 16_384
_BLOCK: Final = re.compile(
    rb"-----BEGIN CERTIFICATE-----\r?\n([A-Za-z0-9+/=\r\n]{1,6000}?)\r?\n?-----END CERTIFICATE-----[\r\n]*"
)


def read_pem_chain(data: bytes, *, length: int) -> tuple[bytes, ...]:
    """Return the DER certificates of a PEM text, in its order; one NUL may end it.

    :param length: how many there must be.
    :raises MalformedError: ``BAD_CERTIFICATE``.
    """
    text = data[:-1] if data.endswith(b"\0") else data
    if len(text) > _MAX_CHAIN_BYTES:
        raise _bad()
    found: list[bytes] = []
    position = 0
    while position < len(text):
        block = _BLOCK.match(text, position)
        if block is None or len(found) == length:
            raise _bad()
        found.append(_der(block[1]))
        position = block.end()
    if len(found) != length:
        raise _bad()
    return tuple(found)


@lru_cache(32)
def write_pem_chain(chain: tuple[bytes, ...]) -> str:
    """Return DER certificates as one PEM text."""
    return "".join(
        f"-----BEGIN CERTIFICATE-----\n{base64.encodebytes(der).decode('ascii')}-----END CERTIFICATE-----\n"
        for der in chain
    )


def _der(text: bytes) -> bytes:
    packed = text.replace(b"\r", b"").replace(b"\n", b"")
    try:
        der = base64.b64decode(packed, validate=True)
    except (binascii.Error, ValueError):
        raise _bad() from None
    # One text for one certificate: no padding too much, no bits left over.
    if len(der) > MAX_CERTIFICATE_BYTES or base64.b64encode(der) != packed:
        raise _bad()
    return der


def _bad() -> MalformedError:
    return MalformedError("BAD_CERTIFICATE", "a chain is not the certificates in PEM that it should be")
