"""A small strict reader of DER, for the certificate extensions that no library reads.

Definite lengths in their shortest form, single-byte tags, nothing left over (X.690,
sections 8.1 and 10.1). Values are sliced, never copied into deeper structures than asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..wire.errors import MalformedError

SEQUENCE: Final = 0x30
MAX_ELEMENTS: Final = 64


@dataclass(frozen=True, slots=True)
class Element:
    """One element.

    :param tag: the identifier octet. :param value: the content octets.
    """

    tag: int
    value: bytes


def read_elements(data: bytes) -> tuple[Element, ...]:
    """Read elements that follow each other until the end.

    :raises MalformedError: ``BAD_DER``.
    """
    found: list[Element] = []
    position = 0
    while position < len(data):
        if len(found) == MAX_ELEMENTS or data[position] & 0x1F == 0x1F:
            raise _bad()
        start, size = _length(data, position + 1)
        if start + size > len(data):
            raise _bad()
        found.append(Element(data[position], data[start : start + size]))
        position = start + size
    return tuple(found)


def read_one(data: bytes, tag: int) -> bytes:
    """Return the content of the one element that the data holds.

    :raises MalformedError: ``BAD_DER``: there are others, or it has another tag.
    """
    match read_elements(data):
        case [Element(found, value)] if found == tag:
            return value
    raise _bad()


def _length(data: bytes, position: int) -> tuple[int, int]:
    """Return where the content begins and how long it is."""
    if position >= len(data):
        raise _bad()
    first = data[position]
    if first < 0x80:
        return position + 1, first
    octets = data[position + 1 : position + 1 + (first & 0x7F)]
    size = int.from_bytes(octets, "big")
    # Two octets reach 65,535, more than any certificate that is read here.
    if (
        not 1 <= len(octets) <= 2
        or len(octets) != first & 0x7F
        or size < (0x80 if len(octets) == 1 else 0x100)
    ):
        raise _bad()
    return position + 1 + len(octets), size


def _bad() -> MalformedError:
    return MalformedError("BAD_DER", "an extension of a certificate is not DER of its form")
