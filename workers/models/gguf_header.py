"""Checks the structure of a GGUF file before a parser in C reads it.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3 (little endian).
Every length is held against the bytes that are there: parsers of this format have had faults there.
"""

from __future__ import annotations

import math
import struct
from typing import Final

from ...wire.errors import ModelError

MAGIC: Final = b"GGUF"
MAX_ENTRIES: Final = 65_536
MAX_ITEMS: Final = 1 << 24
MAX_NAME_BYTES: Final = 65_535
MAX_SIDES: Final = 4
_SIZES: Final = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _ARRAY = 8, 9


class _Reader:
    def __init__(self, content: memoryview) -> None:
        self.content, self.place = content, 0

    def take(self, size: int) -> memoryview:
        piece = self.content[self.place : self.place + size]
        if len(piece) != size:
            raise _malformed()
        self.place += size
        return piece

    def number(self, code: str) -> int:
        return int(struct.unpack("<" + code, self.take(struct.calcsize(code)))[0])

    def count(self, limit: int) -> int:
        value = self.number("Q")
        if value > limit:
            raise _malformed()
        return value

    def name(self) -> bytes:
        return bytes(self.take(self.count(MAX_NAME_BYTES)))

    def value(self) -> None:
        kind = self.number("I")
        if kind in _SIZES:
            self.take(_SIZES[kind])
        elif kind == _STRING:
            self.take(self.count(len(self.content)))
        elif kind == _ARRAY:
            self.array()
        else:
            raise _malformed()

    def array(self) -> None:
        kind, count = self.number("I"), self.count(MAX_ITEMS)
        if kind == _STRING:
            for _ in range(count):
                self.take(self.count(len(self.content)))
        elif kind in _SIZES:  # arrays of arrays are allowed by the format and used by nobody
            self.take(count * _SIZES[kind])
        else:
            raise _malformed()


def check_gguf(content: memoryview) -> None:
    """Refuse what is not a GGUF file from its first byte to its last tensor's beginning.

    :raises ModelError: ``GGUF_MALFORMED``.
    """
    reader = _Reader(content.cast("B"))
    if bytes(reader.take(4)) != MAGIC or reader.number("I") not in (2, 3):
        raise _malformed()
    tensors, entries = reader.count(MAX_ENTRIES), reader.count(MAX_ENTRIES)
    names: set[bytes] = set()
    for _ in range(entries):
        names.add(reader.name())
        reader.value()
    if len(names) != entries:
        raise _malformed()
    _check_tensors(reader, tensors)


def _check_tensors(reader: _Reader, count: int) -> None:
    names: set[bytes] = set()
    offsets = []
    for _ in range(count):
        names.add(reader.name())
        dimensions = reader.number("I")
        if not 1 <= dimensions <= MAX_SIDES:
            raise _malformed()
        if math.prod(reader.count(1 << 40) for _ in range(dimensions)) > 1 << 48:
            raise _malformed()
        reader.number("I")  # the type: the library knows which there are
        offsets.append(reader.number("Q"))
    room = len(reader.content) - reader.place
    if len(names) != count or any(offset % 32 or offset >= room for offset in offsets):
        raise _malformed()


def _malformed() -> ModelError:
    return ModelError("GGUF_MALFORMED", "a *.gguf file is not what its name says")
