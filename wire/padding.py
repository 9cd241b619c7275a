"""Padmé padding, so that ciphertext sizes say little (PURBs, Nikitin et al., PETS 2019, section 4).

Padded form: content length (4 bytes, big endian), content, zero bytes. The padded
length keeps only the top ``floor(log2(log2 n)) + 1`` bits of precision: at most
12 % longer, and at most O(log log n) bits are told.
"""

from __future__ import annotations

from typing import Final

from .errors import MalformedError

_PREFIX: Final = 4
MAX_CONTENT_BYTES: Final = (1 << 32) - 1


def padme(size: int) -> int:
    """Return the Padmé length, in bytes, of ``size`` bytes."""
    if size < 2:
        return size
    exponent = size.bit_length() - 1
    zero_bits = exponent - exponent.bit_length()
    mask = (1 << max(zero_bits, 0)) - 1
    return (size + mask) & ~mask


def pad(content: bytes) -> bytes:
    """Return ``content`` in padded form.

    :raises MalformedError: ``PADDING`` when the content has 4 GiB or more.
    """
    if len(content) > MAX_CONTENT_BYTES:
        raise MalformedError("PADDING", "too much content")
    framed = len(content).to_bytes(_PREFIX, "big") + content
    return framed.ljust(padme(len(framed)), b"\0")


def unpad(padded: bytes) -> bytes:
    """Return the content of a padded form, which must be exactly what :func:`pad` makes.

    :raises MalformedError: ``PADDING``.
    """
    size = int.from_bytes(padded[:_PREFIX], "big")
    end = _PREFIX + size
    if len(padded) < end or len(padded) != padme(end) or padded.count(0, end) != len(padded) - end:
        raise MalformedError("PADDING", "the padding is not as it should be")
    return padded[_PREFIX:end]
