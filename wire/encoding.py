"""Deterministic CBOR: one encoder, one strict decoder, one bounded tolerant decoder.

Our own formats and AIR v1 use RFC 8949 section 4.2.1 (core deterministic
encoding): shortest heads, definite lengths, map keys in the bytewise order of
their encodings, no duplicates, and here also nothing after the item. The strict
decoder refuses everything else, because bytes that are hashed or signed must
have exactly one form. :func:`decode_tolerant` reads vendors' evidence, which is
not deterministic, within the same bounds.

Both decoders build only plain values; a tag is refused unless it was asked for.
The reason for a decoder of our own is in docs/adr/007.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable, Collection
from dataclasses import dataclass
from operator import itemgetter
from typing import Final, NoReturn

from .errors import MalformedError

DEFAULT_MAX_BYTES: Final = 1 << 20
DEFAULT_MAX_DEPTH: Final = 16
# Entries of all arrays and maps of one item together. One byte on the wire can become an empty
# list of 64 bytes, so that the limit on bytes alone does not bound the memory of a large pack.
MAX_ENTRIES: Final = 1 << 20

_UINT, _NINT, _BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = range(8)
_CANONICAL_NAN: Final = b"\xf9\x7e\x00"
MAX_REMEMBERED_KEYS: Final = 1024
_INT_KEYS: Final[dict[int, bytes]] = {}
_first: Final = itemgetter(0)


@dataclass(frozen=True, slots=True)
class Tag:
    """A CBOR tag that was asked for, with its content (RFC 8949, section 3.4)."""

    tag: int
    value: object


def sha256(data: bytes | bytearray | memoryview) -> bytes:
    """Return the 32-byte SHA-256 digest of ``data``."""
    return hashlib.sha256(data).digest()


# ----------------------------------------------------------------- encoding


def _head(major: int, value: int) -> bytes:
    if value < 24:
        return bytes((major << 5 | value,))
    if value < 0x100:
        return bytes((major << 5 | 24, value))
    if value < 0x10000:
        return struct.pack(">BH", major << 5 | 25, value)
    if value < 0x100000000:
        return struct.pack(">BI", major << 5 | 26, value)
    if value < 0x10000000000000000:
        return struct.pack(">BQ", major << 5 | 27, value)
    raise MalformedError("CBOR_BAD_TYPE", "an integer is outside 64 bits")


_SMALL_HEADS: Final = tuple(tuple(_head(major, value) for value in range(256)) for major in range(8))


def _float(value: float) -> bytes:
    """Encode in the shortest form that keeps the value (RFC 8949, section 4.2.1)."""
    if math.isnan(value):
        return _CANONICAL_NAN
    for code, initial in (("e", 0xF9), ("f", 0xFA)):
        try:
            packed = struct.pack(">" + code, value)
        except OverflowError:
            continue
        if struct.unpack(">" + code, packed)[0] == value:
            return bytes((initial,)) + packed
    return b"\xfb" + struct.pack(">d", value)


def _write_int(value: int, out: list[bytes]) -> None:
    major, magnitude = (_UINT, value) if value >= 0 else (_NINT, -1 - value)
    out.append(_SMALL_HEADS[major][magnitude] if magnitude < 256 else _head(major, magnitude))


def _write_string(major: int, value: bytes | bytearray | memoryview, out: list[bytes]) -> None:
    size = len(value)
    out.append(_SMALL_HEADS[major][size] if size < 256 else _head(major, size))
    out.append(bytes(value))


def _encoded_key(key: object) -> bytes:
    """Return a map key's encoding; integers, which formats use again and again, are remembered."""
    kind = type(key)
    if kind is int:
        known = _INT_KEYS.get(key)  # type: ignore[call-overload]
        if known is not None:
            return known  # type: ignore[no-any-return]
    elif kind is not str and kind is not bytes:
        raise MalformedError("CBOR_BAD_TYPE", "a map key is neither an integer nor a string")
    parts: list[bytes] = []
    _write(key, parts)
    encoded = b"".join(parts)
    if kind is int and len(_INT_KEYS) < MAX_REMEMBERED_KEYS:
        _INT_KEYS[key] = encoded  # type: ignore[index]
    return encoded


def _write_map(value: dict[object, object], out: list[bytes]) -> None:
    entries = [(_encoded_key(key), item) for key, item in value.items()]
    entries.sort(key=_first)
    size = len(entries)
    out.append(_SMALL_HEADS[_MAP][size] if size < 256 else _head(_MAP, size))
    for encoded, item in entries:
        out.append(encoded)
        _write(item, out)


def _write_tag(value: Tag, out: list[bytes]) -> None:
    if type(value.tag) is not int or value.tag < 0:
        raise MalformedError("CBOR_BAD_TYPE", "a tag number is not an unsigned integer")
    out.append(_head(_TAG, value.tag))
    _write(value.value, out)


def _write(value: object, out: list[bytes]) -> None:
    kind = type(value)
    if kind is bytes:
        _write_string(_BYTES, value, out)  # type: ignore[arg-type]
    elif kind is int:
        _write_int(value, out)  # type: ignore[arg-type]
    elif kind is str:
        _write_string(_TEXT, _utf8(value), out)  # type: ignore[arg-type]
    elif kind is dict:
        _write_map(value, out)  # type: ignore[arg-type]
    elif kind is list or kind is tuple:
        out.append(_head(_ARRAY, len(value)))  # type: ignore[arg-type]
        for item in value:  # type: ignore[attr-defined]
            _write(item, out)
    elif value is None:
        out.append(b"\xf6")
    elif kind is bool:
        out.append(b"\xf5" if value else b"\xf4")
    elif kind is float:
        out.append(_float(value))  # type: ignore[arg-type]
    elif isinstance(value, Tag):
        _write_tag(value, out)
    elif isinstance(value, (bytearray, memoryview)):
        _write_string(_BYTES, value, out)
    else:
        raise MalformedError("CBOR_BAD_TYPE", f"a {kind.__name__} has no encoding here")


def _utf8(value: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise MalformedError("CBOR_BAD_UTF8", "a text holds a lone surrogate") from None


def encode(value: object) -> bytes:
    """Encode as deterministic CBOR (RFC 8949, section 4.2.1).

    :param value: int (64 bits), bytes, str, float, bool, None, list, tuple, dict or :class:`Tag`.
    :raises MalformedError: ``CBOR_BAD_TYPE`` or ``CBOR_BAD_UTF8``.
    """
    out: list[bytes] = []
    try:
        _write(value, out)
    except RecursionError:
        raise MalformedError("CBOR_TOO_DEEP", "the value is nested too deeply") from None
    return b"".join(out)


# ----------------------------------------------------------------- decoding


class _Decoder:
    """Reads one item. ``strict`` demands the deterministic form."""

    __slots__ = ("data", "end", "entries_left", "max_depth", "pos", "strict", "tags")

    def __init__(self, data: bytes, max_depth: int, tags: Collection[int], strict: bool) -> None:
        self.data = data
        self.pos = 0
        self.end = len(data)
        self.entries_left = MAX_ENTRIES
        self.max_depth = max_depth
        self.tags = tags
        self.strict = strict

    def item(self, depth: int) -> object:  # noqa: PLR0911 - one for each kind
        pos = self.pos
        if pos >= self.end:
            self._truncated()
        initial = self.data[pos]
        if initial < 24:  # small integers and short strings are most of what there is
            self.pos = pos + 1
            return initial
        major, info = initial >> 5, initial & 31
        if info < 24 and _BYTES <= major <= _TEXT:
            start = pos + 1
            self.pos = stop = start + info
            if stop > self.end:
                self._truncated()
            raw = self.data[start:stop]
            return raw if major == _BYTES else self._text(raw)
        self.pos = pos + 1
        if major == _SIMPLE:
            return self._simple(info)
        argument = info if info < 24 else self._argument(info)
        if major == _BYTES:
            return self._take(argument) if argument is not None else b"".join(self._chunks(_BYTES))
        if major == _TEXT:
            if argument is not None:
                return self._text(self._take(argument))
            # Each chunk must be UTF-8 by itself (RFC 8949, section 3.2.3).
            return "".join(map(self._text, self._chunks(_TEXT)))
        if major <= _NINT:
            number = self._definite(argument)
            return number if major == _UINT else -1 - number
        if depth >= self.max_depth:
            raise MalformedError("CBOR_TOO_DEEP", f"nested deeper than {self.max_depth}")
        return _CONTAINERS[major](self, argument, depth + 1)

    def _argument(self, info: int) -> int | None:
        if info == 24 and self.pos < self.end:
            # By far the most frequent long head.
            value = self.data[self.pos]
            if value >= 24:
                self.pos += 1
                return value
        if info == 31:
            if self.strict:
                raise MalformedError("CBOR_NOT_DETERMINISTIC", "indefinite length")
            return None
        if info > 27:
            raise MalformedError("CBOR_BAD_TYPE", "reserved additional information")
        size = 1 << (info - 24)
        value = int.from_bytes(self._take(size), "big")
        if self.strict and value < (24 if size == 1 else 1 << (4 * size)):
            raise MalformedError("CBOR_NOT_DETERMINISTIC", "a head is not in its shortest form")
        return value

    def _definite(self, argument: int | None) -> int:
        if argument is None:
            raise MalformedError("CBOR_BAD_TYPE", "an indefinite integer or tag")
        return argument

    def _take(self, size: int) -> bytes:
        start = self.pos
        stop = start + size
        if stop > self.end:
            self._truncated()
        self.pos = stop
        return self.data[start:stop]

    def _truncated(self) -> NoReturn:
        raise MalformedError("CBOR_TRUNCATED", "the data ends inside an item")

    def _text(self, raw: bytes) -> str:
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise MalformedError("CBOR_BAD_UTF8", "a text is not UTF-8") from None

    def _at_break(self) -> bool:
        if self.pos >= self.end:
            self._truncated()
        if self.data[self.pos] != 0xFF:
            return False
        self.pos += 1
        return True

    def _chunks(self, major: int) -> list[bytes]:
        chunks = []
        while not self._at_break():
            initial = self.data[self.pos]
            self.pos += 1
            if initial >> 5 != major or initial & 31 == 31:
                raise MalformedError("CBOR_BAD_TYPE", "a wrong chunk in an indefinite string")
            info = initial & 31
            chunks.append(self._take(self._definite(info if info < 24 else self._argument(info))))
        return chunks

    def _spend(self, entries: int) -> None:
        self.entries_left -= entries
        if self.entries_left < 0:
            raise MalformedError("CBOR_TOO_LARGE", f"more than {MAX_ENTRIES} entries")

    def _array(self, count: int | None, depth: int) -> list[object]:
        if count is not None:
            if count > self.end - self.pos:
                self._truncated()
            self._spend(count)
            return [self.item(depth) for _ in range(count)]
        items = []
        while not self._at_break():
            self._spend(1)
            items.append(self.item(depth))
        return items

    def _map(self, count: int | None, depth: int) -> dict[object, object]:
        if count is not None:
            if count > (self.end - self.pos) // 2:
                self._truncated()
            self._spend(count)
        result: dict[object, object] = {}
        previous = b""
        seen = 0
        strict, data, item = self.strict, self.data, self.item
        while seen != count if count is not None else not self._at_break():
            if count is None:
                self._spend(1)
            start = self.pos
            key = item(depth)
            kind = type(key)
            if kind is not int and kind is not str and kind is not bytes:
                raise MalformedError("CBOR_BAD_TYPE", "a map key is neither an integer nor a string")
            if key in result:
                raise MalformedError("CBOR_DUPLICATE_KEY", "a map key stands twice")
            if strict:
                encoded = data[start : self.pos]
                if encoded < previous:
                    raise MalformedError("CBOR_NOT_DETERMINISTIC", "map keys are not sorted")
                previous = encoded
            result[key] = item(depth)
            seen += 1
        return result

    def _tag(self, number: int | None, depth: int) -> Tag:
        tag = self._definite(number)
        if tag not in self.tags:
            raise MalformedError("CBOR_UNEXPECTED_TAG", f"tag {tag} was not asked for")
        return Tag(tag, self.item(depth))

    def _simple(self, info: int) -> object:
        if 20 <= info <= 22:
            return (False, True, None)[info - 20]
        if not 25 <= info <= 27:
            raise MalformedError("CBOR_BAD_TYPE", "an unknown simple value")
        start = self.pos - 1
        size = 1 << (info - 24)
        value: float = struct.unpack(">" + {2: "e", 4: "f", 8: "d"}[size], self._take(size))[0]
        if self.strict and _float(value) != self.data[start : self.pos]:
            raise MalformedError("CBOR_NOT_DETERMINISTIC", "a float is not in its shortest form")
        return value


_CONTAINERS: Final[dict[int, Callable[[_Decoder, int | None, int], object]]] = {
    _ARRAY: _Decoder._array,
    _MAP: _Decoder._map,
    _TAG: _Decoder._tag,
}


def _decode(data: bytes, max_bytes: int, max_depth: int, tags: Collection[int], strict: bool) -> object:
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise MalformedError("CBOR_BAD_TYPE", "expected bytes")
    if len(data) > max_bytes:
        raise MalformedError("CBOR_TOO_LARGE", f"more than {max_bytes} bytes")
    decoder = _Decoder(bytes(data), max_depth, tags, strict)
    value = decoder.item(0)
    if decoder.pos != decoder.end:
        raise MalformedError("CBOR_TRAILING_BYTES", "bytes follow the item")
    return value


def decode(
    data: bytes,
    *,
    max_bytes: int = DEFAULT_MAX_BYTES,
    max_depth: int = DEFAULT_MAX_DEPTH,
    tags: Collection[int] = frozenset(),
) -> object:
    """Decode one deterministically encoded item (RFC 8949, section 4.2.1) and nothing else.

    Beside the bounds below, its arrays and maps have at most ``MAX_ENTRIES`` entries together.

    :param max_bytes: refuse longer input, in bytes.
    :param max_depth: how deeply arrays, maps and tags may nest.
    :param tags: tag numbers that may appear; they come back as :class:`Tag`.
    :raises MalformedError: ``CBOR_NOT_DETERMINISTIC``, ``CBOR_TRAILING_BYTES``, ``CBOR_DUPLICATE_KEY``,
        ``CBOR_TOO_DEEP``, ``CBOR_TOO_LARGE``, ``CBOR_TRUNCATED``, ``CBOR_UNEXPECTED_TAG``,
        ``CBOR_BAD_TYPE`` or ``CBOR_BAD_UTF8``.
    """
    return _decode(data, max_bytes, max_depth, tags, strict=True)


def decode_tolerant(
    data: bytes,
    *,
    max_bytes: int = DEFAULT_MAX_BYTES,
    max_depth: int = DEFAULT_MAX_DEPTH,
    tags: Collection[int] = frozenset(),
) -> object:
    """Decode one well-formed item that need not be deterministic (vendors' evidence only).

    Indefinite lengths, long forms and unsorted keys pass; duplicate keys, trailing
    bytes, tags that were not asked for and whatever exceeds the bounds do not.

    :raises MalformedError: as :func:`decode`, less ``CBOR_NOT_DETERMINISTIC``.
    """
    return _decode(data, max_bytes, max_depth, tags, strict=False)
