"""Changes inputs so that they stay close to what parsers expect: bytes, lengths, trees, texts.

Everything is drawn from the generator that is passed in: one seed gives one input.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Final

from ephemeralml.wire.encoding import Tag, decode_tolerant, encode
from ephemeralml.wire.errors import Error

MAX_BYTES: Final = 1 << 17
INTERESTING: Final = (0, 1, 2, 23, 24, 127, 128, 255, 256, 65_535, 65_536, 2**31 - 1, 2**31, 2**32 - 1, 2**63)
DICTIONARY: Final = (
    *(
        bytes([byte])
        for byte in (0x00, 0x1B, 0x3B, 0x40, 0x5F, 0x60, 0x7F, 0x80, 0x9F, 0xA0, 0xBF, 0xF6, 0xFF)
    ),
    b"\x5b\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x9b\x00\x00\x00\x01\x00\x00\x00\x00",
    b"\xbb\x7f\xff\xff\xff\xff\xff\xff\xff",
    b"\xd2",
    b"\xd8\x23\x63(a+)+$",  # tag 35: a regular expression
    b"\xf9\x7e\x00",
    b"\xfb\x7f\xf0\x00\x00\x00\x00\x00\x00",
    b"\x30\x80",
    b"\x30\x84\xff\xff\xff\xff",
    b"\x24\x80",
    b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x03",
    b"-----BEGIN CERTIFICATE-----\n",
    b"-----END CERTIFICATE-----\n",
    b'{"',
    b'":',
    b"[[[[",
    b"]]]]",
    b"null",
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"\\ud800",
    b'"alg":"none"',
    b"<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/hostname'>]>",
    b"<!--",
    b"..",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
)
# The heads of CBOR items with a long argument, and whatever stands before a long DER length.
_HEAD: Final = re.compile(
    rb"[\x18-\x1b\x38-\x3b\x58-\x5b\x78-\x7b\x98-\x9b\xb8-\xbb\xd8-\xdb]|.(?=[\x81-\x84])", re.DOTALL
)
_ALL_TAGS: Final = range(1 << 16)
_MAX_WRAPS: Final = 3000

Mutation = Callable[[bytes, Random, Sequence[bytes]], bytes]


def mutate(seeds: Sequence[bytes], random: Random, dictionary: Sequence[bytes] = ()) -> bytes:
    """Return one input: a seed with one to four changes.

    :param dictionary: tokens of the target's own format.
    """
    data = random.choice(seeds)
    for _ in range(random.choice((1, 1, 1, 2, 3, 4))):
        data = random.choice(_MUTATIONS)(data, random, (*seeds, *dictionary))[:MAX_BYTES]
    return data


def _at(data: bytes, random: Random) -> int:
    return random.randrange(len(data)) if data else 0


def _flip(data: bytes, random: Random, _: Sequence[bytes]) -> bytes:
    if not data:
        return b"\x01"
    changed = bytearray(data)
    for _bit in range(random.choice((1, 1, 2, 8))):
        changed[_at(data, random)] ^= 1 << random.randrange(8)
    return bytes(changed)


def _replace(data: bytes, random: Random, _: Sequence[bytes]) -> bytes:
    at, size = _at(data, random), random.choice((1, 1, 2, 4, 8))
    return data[:at] + random.randbytes(size) + data[at + size :]


def _insert(data: bytes, random: Random, _: Sequence[bytes]) -> bytes:
    at = _at(data, random)
    return data[:at] + random.randbytes(random.choice((1, 1, 2, 16))) + data[at:]


def _delete(data: bytes, random: Random, _: Sequence[bytes]) -> bytes:
    at = _at(data, random)
    return data[:at] + data[at + random.choice((1, 1, 2, 4, 48)) :]


def _truncate(data: bytes, random: Random, _: Sequence[bytes]) -> bytes:
    return data[: _at(data, random)]


def _repeat(data: bytes, random: Random, _: Sequence[bytes]) -> bytes:
    at = _at(data, random)
    piece = data[at : at + random.choice((1, 2, 7, 64, 600))]
    return data[:at] + piece * random.choice((2, 3, 17, 1000)) + data[at:]


def _splice(data: bytes, random: Random, seeds: Sequence[bytes]) -> bytes:
    other = random.choice(seeds)
    return data[: _at(data, random)] + other[_at(other, random) :]


def _graft(data: bytes, random: Random, seeds: Sequence[bytes]) -> bytes:
    other = random.choice(seeds)
    at, start = _at(data, random), _at(other, random)
    piece = other[start : start + random.choice((1, 4, 48, 500))]
    return data[:at] + piece + data[at + len(piece) :]


def _word(data: bytes, random: Random, _: Sequence[bytes]) -> bytes:
    at, word = _at(data, random), random.choice(DICTIONARY)
    return data[:at] + word + data[at + random.choice((0, len(word))) :]


def _length(data: bytes, random: Random, _: Sequence[bytes]) -> bytes:
    """Put an interesting number where a length may stand: after a CBOR or DER head, or anywhere."""
    head = _HEAD.search(data, _at(data, random)) if random.random() < 0.8 else None
    at = _at(data, random) if head is None else head.start() + 1
    size = random.choice((1, 2, 4, 8))
    number = random.choice(INTERESTING) + random.choice((-1, 0, 0, 1))
    order = random.choice(("big", "little"))
    encoded = (number % (1 << 8 * size)).to_bytes(size, order)  # type: ignore[arg-type]
    return data[:at] + encoded + data[at + size :]


def _wrap(data: bytes, random: Random, _: Sequence[bytes]) -> bytes:
    count = random.choice((1, 17, 200, _MAX_WRAPS))
    opening, closing = random.choice(
        (
            (b"\x81", b""),
            (b"\x9f", b"\xff"),
            (b"\xa1\x00", b""),
            (b"\xd2", b""),
            (b"[", b"]"),
            (b'{"":', b"}"),
        )
    )
    return opening * count + data + closing * count


def _tree(data: bytes, random: Random, _: Sequence[bytes]) -> bytes:
    """Change one node of what is CBOR or JSON, and write it again."""
    for read, write in ((_read_cbor, encode), (_read_json, _write_json)):
        try:
            return write(_changed(read(data), random))
        except (Error, ValueError, TypeError, RecursionError, OverflowError):
            continue
    return _flip(data, random, ())


def _segments(data: bytes, random: Random, seeds: Sequence[bytes]) -> bytes:
    """Change what stands in base64url between dots (a compact JWT)."""
    parts = data.split(b".")
    if not 2 <= len(parts) <= 5:
        return _tree(data, random, seeds)
    which = random.randrange(len(parts))
    try:
        inner = base64.urlsafe_b64decode(parts[which] + b"=" * (-len(parts[which]) % 4))
    except (binascii.Error, ValueError):
        return _flip(data, random, seeds)
    parts[which] = base64.urlsafe_b64encode(_tree(inner, random, seeds)).rstrip(b"=")
    return b".".join(parts)


_MUTATIONS: Final[tuple[Mutation, ...]] = (
    *(_flip, _flip, _replace, _insert, _delete, _truncate, _repeat, _splice, _graft, _word, _word),
    *(_length, _length, _wrap, _tree, _tree, _tree, _tree, _tree, _segments),
)


# ----------------------------------------------------------------- trees


def _read_cbor(data: bytes) -> object:
    return decode_tolerant(data, max_bytes=MAX_BYTES, tags=_ALL_TAGS)


def _read_json(data: bytes) -> object:
    return json.loads(data)


def _write_json(value: object) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


def _changed(value: object, random: Random) -> object:
    """Return the value with one node changed; goes down while it likes to."""
    if random.random() < 0.75:
        if isinstance(value, dict) and value:
            key = random.choice(list(value))
            return {name: _changed(item, random) if name == key else item for name, item in value.items()}
        if isinstance(value, list) and value:
            at = random.randrange(len(value))
            return [_changed(item, random) if place == at else item for place, item in enumerate(value)]
        if isinstance(value, Tag):
            return Tag(value.tag, _changed(value.value, random))
        if isinstance(value, bytes) and len(value) > 3:
            return _changed_inside(value, random)
    return _node(value, random)


def _changed_inside(value: bytes, random: Random) -> bytes:
    """Byte strings often hold CBOR themselves (COSE)."""
    try:
        inner = _read_cbor(value)
    except Error:
        return random.choice((_flip, _truncate, _insert))(value, random, ())
    return encode(_changed(inner, random)) if isinstance(inner, (dict, list)) else _flip(value, random, ())


def _node(value: object, random: Random) -> object:
    if isinstance(value, dict) and random.random() < 0.7:
        return _map(value, random)
    if isinstance(value, list) and random.random() < 0.7:
        return _list(value, random)
    if isinstance(value, (bytes, str)) and random.random() < 0.6:
        return value * random.choice((0, 2, 100)) if random.random() < 0.5 else value[: len(value) // 2]
    if type(value) is int and random.random() < 0.6:
        return random.choice((value + 1, value - 1, -value, value * 1000, random.choice(INTERESTING)))
    choices: tuple[object, ...] = (
        *(None, True, False, 0, -1, 2**64 - 1, 1.5, float("nan"), "", "\x1b[31m", "a" * 5000),
        *([], {}, [[]], {"": ""}),
    )
    return random.choice((*choices, b"", bytes(48), bytes(2000), Tag(18, [])))


def _map(value: dict[object, object], random: Random) -> dict[object, object]:
    keys = list(value)
    key = random.choice(keys) if keys else "none"
    match random.randrange(4):
        case 0:
            return {name: item for name, item in value.items() if name != key}
        case 1:
            return {**value, random.choice(("extra", "", 99)): 1}
        case 2 if len(keys) > 1:
            other = random.choice(keys)
            return {**value, key: value[other], other: value[key]}
        case _:
            renamed = key.upper() if isinstance(key, str) else str(key)
            return {renamed if name == key else name: item for name, item in value.items()}


def _list(value: list[object], random: Random) -> list[object]:
    match random.randrange(5):
        case 0:
            return value[:-1]
        case 1:
            return value * random.choice((2, 50))
        case 2:
            return value[::-1]
        case 3:
            return [*value, *value[:1]]
        case _:
            return random.sample(value, len(value))
