"""Our own encoder and decoders: RFC 8949's examples, every strictness rule, and anything else as bytes."""

from __future__ import annotations

import json
import math
import struct
import tracemalloc
from typing import Any, cast

import cbor2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ephemeralml.wire.encoding import MAX_ENTRIES, Tag, decode, decode_tolerant, encode, sha256
from ephemeralml.wire.errors import MalformedError

from ..corpus import corpus
from .strategies import TAGS, keys, mutations, refuses, values

MANY_TAGS = frozenset({0, 1, 2, 3, 23, 24, 32})


def same(left: object, right: object) -> bool:
    """Return whether two values are equal in type and value, NaN and the sign of zero included."""
    if isinstance(left, float) and isinstance(right, float):
        return struct.pack(">d", left) == struct.pack(">d", right) or (math.isnan(left) and math.isnan(right))
    if isinstance(left, Tag) and isinstance(right, Tag):
        return left.tag == right.tag and same(left.value, right.value)
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(value, right[key]) for key, value in left.items())
    return type(left) is type(right) and left == right


def appendix_a() -> list[dict[str, Any]]:
    vectors: list[dict[str, Any]] = json.loads(corpus("vectors/cbor_appendix_a.json").read_text())
    return vectors


def simple(data: bytes) -> bool:
    """Return whether the item is a simple value that has no meaning here (undefined included)."""
    return data[0] >> 5 == 7 and data[0] & 31 not in (20, 21, 22, 25, 26, 27)


def test_rfc8949_appendix_a_tolerant() -> None:
    seen = 0
    for vector in appendix_a():
        data = bytes.fromhex(vector["hex"])
        if simple(data):
            refuses("CBOR_BAD_TYPE", decode_tolerant, data, tags=MANY_TAGS)
            continue
        value = decode_tolerant(data, tags=MANY_TAGS)
        if "decoded" in vector and not isinstance(value, Tag):
            expected = vector["decoded"]
            assert json.loads(json.dumps(value), parse_float=float) == expected or value == expected
        seen += 1
    assert seen >= 70


def test_rfc8949_appendix_a_strict() -> None:
    strict = 0
    for vector in appendix_a():
        data = bytes.fromhex(vector["hex"])
        if simple(data):
            continue
        if not vector["roundtrip"]:
            refuses("CBOR_NOT_DETERMINISTIC", decode, data, tags=MANY_TAGS)
            continue
        assert encode(decode(data, tags=MANY_TAGS)) == data
        strict += 1
    assert strict >= 50


@given(values)
def test_round_trip(value: object) -> None:
    data = encode(value)
    assert same(decode(data, tags=TAGS), value)
    assert same(decode_tolerant(data, tags=TAGS), value)
    assert encode(decode(data, tags=TAGS)) == data


@given(st.dictionaries(keys, st.integers(0, 9), max_size=12))
def test_keys_are_in_bytewise_order_whatever_the_insertion(value: dict[object, object]) -> None:
    data = encode(value)
    assert encode(dict(reversed(value.items()))) == data
    result = decode(data)
    assert isinstance(result, dict)
    encoded = [encode(key) for key in result]
    assert encoded == sorted(encoded)


@given(values)
def test_another_library_reads_the_same(value: object) -> None:
    def untagged(item: object) -> object:
        if isinstance(item, Tag):
            return untagged(item.value)
        if isinstance(item, list):
            return [untagged(part) for part in item]
        return {k: untagged(v) for k, v in item.items()} if isinstance(item, dict) else item

    plain = untagged(value)
    assert same(cbor2.loads(encode(plain)), plain)
    assert same(decode_tolerant(cbor2.dumps(plain)), plain)


@given(st.binary(max_size=64))
@example(b"\xa1\x00\xf9\x7e\x00")
@settings(max_examples=500)
def test_any_bytes_are_malformed_or_deterministic(data: bytes) -> None:
    for read in (decode, decode_tolerant):
        try:
            value = read(data, tags=TAGS)
        except MalformedError:
            continue
        if read is decode:
            assert encode(value) == data
        else:
            assert same(decode(encode(value), tags=TAGS), value)


def test_mutated_items_are_malformed_or_deterministic() -> None:
    value = {
        1: [1, -500, "text", b"bytes", 1.5, None, True, {"a": 2**40, b"b": [[], {}]}],
        -1: Tag(18, "x" * 30),
    }
    for changed in mutations(encode(value), 3000):
        try:
            again = decode(changed, tags=TAGS)
        except MalformedError:
            continue
        assert encode(again) == changed


@pytest.mark.parametrize("size", [24, 25, 26, 27])
@pytest.mark.parametrize("major", range(7))
def test_every_long_head_is_refused(major: int, size: int) -> None:
    width = 1 << (size - 24)
    largest_shorter = (23, 0xFF, 0xFFFF, 0xFFFFFFFF)[size - 24]
    head = bytes([major << 5 | size]) + largest_shorter.to_bytes(width, "big")
    refuses("CBOR_NOT_DETERMINISTIC", decode, head + bytes(64), tags=range(30))
    shortest = bytes([major << 5 | size]) + (largest_shorter + 1).to_bytes(width, "big")
    with pytest.raises(MalformedError) as caught:  # bytes are missing or too many, but the head is right
        decode(shortest + bytes(3), tags=())
    assert caught.value.code != "CBOR_NOT_DETERMINISTIC"


@pytest.mark.parametrize("head", [b"\x5f", b"\x7f", b"\x9f", b"\xbf"])
def test_indefinite_lengths_are_for_the_tolerant_decoder(head: bytes) -> None:
    refuses("CBOR_NOT_DETERMINISTIC", decode, head + b"\xff")
    assert decode_tolerant(head + b"\xff") in (b"", "", [], {})


@pytest.mark.parametrize(
    "data", ["1f", "3f", "df", "ff", "5f6161ff", "7f4161ff", "5f5f4161ffff", "9fff00", "5fff00"]
)
def test_wrong_breaks_and_chunks_are_refused_by_both(data: str) -> None:
    for read in (decode, decode_tolerant):
        with pytest.raises(MalformedError):
            read(bytes.fromhex(data), tags=range(30))


def test_tolerant_still_refuses_duplicates_trailing_bytes_and_tags() -> None:
    refuses("CBOR_DUPLICATE_KEY", decode_tolerant, b"\xa2\x01\x00\x18\x01\x00")
    refuses("CBOR_DUPLICATE_KEY", decode_tolerant, b"\xbf\x01\x00\x01\x00\xff")
    refuses("CBOR_TRAILING_BYTES", decode_tolerant, b"\x9f\xff\x00")
    refuses("CBOR_UNEXPECTED_TAG", decode_tolerant, b"\xd8\x23\x61a")
    refuses("CBOR_BAD_UTF8", decode_tolerant, b"\x7f\x61\xc3\x61\xbc\xff")


def test_a_key_that_is_not_a_plain_string_or_integer_is_refused() -> None:
    for key in ("80", "a0", "f4", "f6", "f90000", "d20000"[:4]):
        data = b"\xa1" + bytes.fromhex(key) + b"\x00"
        refuses("CBOR_BAD_TYPE", decode, data, tags=(18,))
    for value in ({1.0: 0}, {None: 0}, {True: 0}, {(1,): 0}):
        refuses("CBOR_BAD_TYPE", encode, value)


@pytest.mark.parametrize(
    "value", [2**64, -(2**64) - 1, {1}, object(), 1j, Tag(-1, 0), Tag(2**64, 0), [range(3)], {1: Exception}]
)
def test_what_has_no_encoding_is_refused(value: object) -> None:
    refuses("CBOR_BAD_TYPE", encode, value)


def test_a_tag_number_of_another_type_is_refused() -> None:
    refuses("CBOR_BAD_TYPE", lambda: encode(Tag("18", 0)))  # type: ignore[arg-type]
    refuses("CBOR_BAD_TYPE", encode, Tag(True, 0))


def test_lone_surrogates_are_refused() -> None:
    refuses("CBOR_BAD_UTF8", encode, "\ud800")
    refuses("CBOR_BAD_UTF8", encode, {"\ud800": 1})


def test_bytes_like_objects_are_read_and_written() -> None:
    assert encode(bytearray(b"ab")) == encode(memoryview(b"ab")) == b"\x42ab"
    for kind in (memoryview, bytearray):
        assert decode(cast("bytes", kind(b"\x01"))) == 1
    refuses("CBOR_BAD_TYPE", lambda: decode("00"))  # type: ignore[arg-type]
    assert sha256(bytearray()).hex().startswith("e3b0c442")


def test_depth_is_bounded_both_ways() -> None:
    assert decode(b"\x81" * 16 + b"\x00") is not None
    for head in (b"\x81", b"\xa1\x00", b"\x9f", b"\xd2"):
        for read in (decode_tolerant,) if head == b"\x9f" else (decode, decode_tolerant):
            refuses("CBOR_TOO_DEEP", read, head * 17 + b"\x00", tags=(18,))
            refuses("CBOR_TOO_DEEP", read, head * 500_000, tags=(18,))
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]
    refuses("CBOR_TOO_DEEP", encode, nested)


def test_size_is_bounded() -> None:
    data = encode(bytes(100))
    assert decode(data, max_bytes=102) == bytes(100)
    refuses("CBOR_TOO_LARGE", decode, data, max_bytes=101)
    refuses("CBOR_TOO_LARGE", decode_tolerant, data, max_bytes=101)


@pytest.mark.parametrize("claim", [2**16, 2**31, 2**32, 2**62, 2**63, 2**64 - 1])
@pytest.mark.parametrize("major", [2, 3, 4, 5])
def test_a_giant_length_costs_nothing(major: int, claim: int) -> None:
    head = encode(claim)
    data = bytes([head[0] | major << 5]) + head[1:] + bytes(1000)
    tracemalloc.start()
    try:
        refuses("CBOR_TRUNCATED", decode, data)
        refuses("CBOR_TRUNCATED", decode_tolerant, data)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.timeout(60)  # a guard against quadratic work, not a measurement
@pytest.mark.parametrize("form", ["array", "arrays", "map", "indefinite"])
def test_the_entries_of_an_item_are_bounded(form: str) -> None:
    """One byte becomes an object of 64: without this bound a pack of 128 MiB took 8 GB and minutes."""
    many = MAX_ENTRIES + 1
    if form == "array":
        data = b"\x9a" + many.to_bytes(4, "big") + b"\x80" * many
    elif form == "arrays":
        data = b"\x84" + (b"\x9a" + (many // 2).to_bytes(4, "big") + b"\xf6" * (many // 2)) * 2 + b"\x80\x80"
    elif form == "map":
        data = b"\xba" + many.to_bytes(4, "big") + bytes(2 * many)
    else:
        data = b"\x9f" + b"\xf6" * many + b"\xff"
    refuses("CBOR_TOO_LARGE", decode_tolerant, data, max_bytes=1 << 28)
    if form == "array":
        refuses("CBOR_TOO_LARGE", decode, data, max_bytes=1 << 28)
        assert decode(encode([None] * MAX_ENTRIES), max_bytes=1 << 28) == [None] * MAX_ENTRIES


@pytest.mark.timeout(60)
def test_colliding_keys_cost_little() -> None:
    data = encode({(number << 46): 0 for number in range(100_000)})
    decode(data, max_bytes=1 << 24)


def test_floats_take_their_shortest_form() -> None:
    for value, size in ((1.5, 3), (65504.0, 3), (65505.0, 5), (2**-24, 3), (2**-25, 5), (0.1, 9), (1e39, 9)):
        assert len(encode(value)) == size
    assert encode(float("nan")) == encode(-float("nan")) == b"\xf9\x7e\x00"
    assert encode(-0.0) == b"\xf9\x80\x00"
    for other_nan in ("f97e01", "f9fe00", "fa7fc00000", "fb7ff8000000000000"):
        refuses("CBOR_NOT_DETERMINISTIC", decode, bytes.fromhex(other_nan))


def test_every_prefix_is_truncated() -> None:
    data = encode({1: ["text", b"bytes", 2**40, 0.1, [{}]], "k": Tag(18, 1)})
    for size in range(len(data)):
        refuses("CBOR_TRUNCATED", decode, data[:size], tags=(18,))
        refuses("CBOR_TRUNCATED", decode_tolerant, data[:size], tags=(18,))
