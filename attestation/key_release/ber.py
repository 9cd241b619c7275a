"""A bounded reader of BER and a writer of DER, as far as CMS needs them (ITU-T X.690).

AWS KMS answers in BER with indefinite lengths and strings in pieces. The reader
builds a plain tree, within bounds, and knows nothing of types; whoever reads the
tree checks them. Low tag numbers only, which is all that CMS has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ...wire.errors import MalformedError

MAX_DEPTH: Final = 16
MAX_ELEMENTS: Final = 512

INTEGER: Final = 0x02
OCTET_STRING: Final = 0x04
NULL: Final = 0x05
OBJECT_IDENTIFIER: Final = 0x06
SEQUENCE: Final = 0x30
SET: Final = 0x31
CONSTRUCTED: Final = 0x20
_END: Final = b"\x00\x00"


@dataclass(frozen=True, slots=True)
class Element:
    """One BER element: identifier octet, and either its content (primitive) or its children."""

    tag: int
    content: bytes
    children: tuple[Element, ...]

    def octets(self, tag: int = OCTET_STRING) -> bytes:
        """Return an octet string's bytes, joined when it comes in pieces (X.690, section 8.7).

        :param tag: identifier octet of the primitive form, when tagged implicitly.
        :raises MalformedError: ``BER_TYPE``.
        """
        if self.tag == tag:
            return self.content
        if self.tag != tag | CONSTRUCTED:
            raise MalformedError("BER_TYPE", "not an octet string")
        return b"".join(child.octets() for child in self.children)

    def expect(self, tag: int, minimum: int = 0, maximum: int = MAX_ELEMENTS) -> tuple[Element, ...]:
        """Return the children of a constructed element of this tag with so many children.

        :raises MalformedError: ``BER_TYPE``.
        """
        if self.tag != tag or not minimum <= len(self.children) <= maximum:
            raise MalformedError("BER_TYPE", "an element is not of its type")
        return self.children

    def value(self, tag: int) -> bytes:
        """Return the content of a primitive element of this tag.

        :raises MalformedError: ``BER_TYPE``.
        """
        if self.tag != tag:
            raise MalformedError("BER_TYPE", "an element is not of its type")
        return self.content


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.left = MAX_ELEMENTS

    def element(self, pos: int, end: int, depth: int) -> tuple[Element, int]:
        self.left -= 1
        if depth > MAX_DEPTH or self.left < 0:
            raise MalformedError("BER_TOO_COMPLEX", "nested too deeply or too many elements")
        if end - pos < 2:
            raise MalformedError("BER_TRUNCATED", "the data ends inside an element")
        tag, first = self.data[pos], self.data[pos + 1]
        if tag & 0x1F == 0x1F or tag == 0:
            raise MalformedError("BER_TYPE", "a tag that CMS does not have")
        pos += 2
        if first == 0x80:
            if not tag & CONSTRUCTED:
                raise MalformedError("BER_LENGTH", "an indefinite primitive")
            return self._indefinite(tag, pos, end, depth)
        size, pos = self._length(first, pos, end)
        if size > end - pos:
            raise MalformedError("BER_TRUNCATED", "the data ends inside an element")
        stop = pos + size
        if not tag & CONSTRUCTED:
            return Element(tag, self.data[pos:stop], ()), stop
        children = []
        while pos < stop:
            child, pos = self.element(pos, stop, depth + 1)
            children.append(child)
        return Element(tag, b"", tuple(children)), stop

    def _indefinite(self, tag: int, pos: int, end: int, depth: int) -> tuple[Element, int]:
        children = []
        while self.data[pos : min(pos + 2, end)] != _END:
            child, pos = self.element(pos, end, depth + 1)
            children.append(child)
        return Element(tag, b"", tuple(children)), pos + 2

    def _length(self, first: int, pos: int, end: int) -> tuple[int, int]:
        if first < 0x80:
            return first, pos
        count = first & 0x7F
        if count > 4 or count > end - pos:
            raise MalformedError("BER_LENGTH", "a length that is too long")
        return int.from_bytes(self.data[pos : pos + count], "big"), pos + count


def read(data: bytes, *, max_bytes: int) -> Element:
    """Return the one BER element that ``data`` holds.

    :param max_bytes: refuse longer input, in bytes.
    :raises MalformedError: ``BER_TOO_LARGE``, ``BER_TOO_COMPLEX``, ``BER_TRUNCATED``, ``BER_LENGTH``,
        ``BER_TYPE`` or ``BER_TRAILING_BYTES``.
    """
    if len(data) > max_bytes:
        raise MalformedError("BER_TOO_LARGE", f"more than {max_bytes} bytes")
    element, end = _Reader(bytes(data)).element(0, len(data), 0)
    if end != len(data):
        raise MalformedError("BER_TRAILING_BYTES", "bytes follow the element")
    return element


def der(tag: int, *parts: bytes) -> bytes:
    """Return one element with a definite, shortest length (DER; X.690, section 10.1)."""
    content = b"".join(parts)
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def indefinite(tag: int, *parts: bytes) -> bytes:
    """Return one constructed element of indefinite length (BER; X.690, section 8.1.3.6)."""
    return bytes((tag, 0x80)) + b"".join(parts) + _END
