"""The header of a safetensors file is checked before anything is loaded from it."""

from __future__ import annotations

import json
import struct
from contextlib import suppress
from typing import Any

import numpy
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from ephemeralml.wire.errors import ModelError
from ephemeralml.workers.models.safetensors_header import check_safetensors

from .forge import tensors, with_header


def entry(dtype: str = "U8", shape: object = (4,), offsets: object = (0, 4)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def check(content: bytes) -> None:
    check_safetensors(memoryview(content))


@pytest.mark.parametrize(
    "header",
    [
        {"a": entry(), "b": entry()},  # overlap
        {"a": entry(offsets=(0, 2), shape=(2,)), "b": entry(offsets=(1, 4), shape=(3,))},  # overlap in part
        {"a": entry(offsets=(0, 2), shape=(2,)), "b": entry(offsets=(3, 4), shape=(1,))},  # hole
        {"a": entry(offsets=(0, 8), shape=(8,))},  # past the end
        {"a": entry(offsets=(0, 3), shape=(3,))},  # bytes that belong to no tensor
        {"a": entry(offsets=(1, 4), shape=(3,))},  # hole at the start
        {},  # no tensor for the bytes
        {"a": entry(dtype="OBJECT")},
        {"a": entry(dtype="u8")},
        {"a": entry(shape=(5,))},
        {"a": entry(shape=(-4,))},
        {"a": entry(shape=(-2, -2))},
        {"a": entry(shape=(True, 4))},
        {"a": entry(shape=(4.0,))},
        {"a": entry(shape=(1,) * 16 + (4,))},  # rank
        {"a": entry(shape=(1 << 40, 0), offsets=(0, 0)), "b": entry()},  # a side without bounds
        {"a": entry(offsets=(4, 0))},
        {"a": entry(offsets=(0, 4, 4))},
        {"a": entry(offsets=(False, 4))},
        {"a": {**entry(), "more": 1}},
        {"a": {"dtype": "U8", "shape": [4]}},
        {"a": "not an entry"},
        {"a": entry(), "__metadata__": {"k": 1}},
        {"a": entry(), "__metadata__": "text"},
        ["not a map"],
    ],
)
def test_header_that_does_not_fit_its_data(header: object) -> None:
    with pytest.raises(ModelError, match="SAFETENSORS_MALFORMED"):
        check(with_header(json.dumps(header).encode(), bytes(4)))


GOOD = json.dumps({"a": entry()})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 8,
        struct.pack("<Q", 1 << 62) + b"{}",  # longer than the file
        struct.pack("<Q", 100_000_001) + bytes(100_000_001),  # longer than any header
        struct.pack("<Q", 2) + b"\xff\xff",
        with_header(b" " + GOOD.encode(), bytes(4)),  # "{" must be first
        with_header(GOOD.encode("utf-16-le"), bytes(4)),
        with_header(GOOD.encode("utf-8-sig"), bytes(4)),
        with_header(b'{"a": NaN}', bytes(4)),
        with_header(b"[" * 100_000, bytes(4)),
        with_header(b'{"a":' * 100_000, bytes(4)),
        with_header(('{"a": %s, "a": %s}' % ((json.dumps(entry()),) * 2)).encode(), bytes(4)),
        with_header(b'{"a": {"dtype": "U8", "shape": [4], "shape": [4], "data_offsets": [0, 4]}}', bytes(4)),
        with_header(
            b'{"a": {"dtype": "U8", "shape": [%s], "data_offsets": [0, 4]}}' % (b"9" * 5000), bytes(4)
        ),
    ],
)
def test_header_out_of_form(content: bytes) -> None:
    with pytest.raises(ModelError, match="SAFETENSORS_MALFORMED"):
        check(content)


def test_good_headers() -> None:
    check(with_header(GOOD.encode(), bytes(4)))
    check(with_header(GOOD.encode() + b"    ", bytes(4)))  # padding, as writers align
    check(with_header(json.dumps({"a": entry(), "__metadata__": {"format": "pt"}}).encode(), bytes(4)))
    check(
        with_header(
            json.dumps({"a": entry(), "none": entry(shape=(0, 3), offsets=(4, 4))}).encode(), bytes(4)
        )
    )
    check(with_header(json.dumps({"scalar": entry(shape=(), offsets=(0, 1))}).encode(), bytes(1)))


@pytest.mark.parametrize("dtype", [numpy.float32, numpy.float16, numpy.int64, numpy.uint8, numpy.bool_])
def test_what_the_format_s_own_library_writes(dtype: type) -> None:
    arrays: dict[str, Any] = {
        "a": numpy.zeros((2, 3), dtype),
        "b": numpy.zeros((), dtype),
        "c": numpy.zeros((0, 5), dtype),
    }
    check(safetensors.numpy.save(arrays, {"format": "pt"}))


SIZES = st.one_of(st.integers(-1, 9), st.sampled_from([1 << 40, 1 << 63, True, 1.5, None, "4"]))
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["U8", "F32", "BF16", "F4", "", 1]),
        "shape": st.lists(SIZES, max_size=3),
        "data_offsets": st.lists(SIZES, min_size=1, max_size=3),
    },
    optional={"more": st.none()},
)
PLAIN = st.tuples(st.integers(0, 6), st.integers(0, 6)).map(
    lambda p: entry(shape=[abs(p[1] - p[0])], offsets=list(p))
)


@settings(max_examples=400, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["a", "b", "__metadata__"]), st.one_of(PLAIN, ENTRIES)),
    st.integers(0, 8),
)
def test_what_we_accept_the_format_s_own_library_accepts(header: dict[str, object], size: int) -> None:
    content = with_header(json.dumps(header).encode(), bytes(size))
    try:
        check(content)
    except ModelError:
        return
    safetensors.deserialize(content)  # type: ignore[no-untyped-call]


@settings(max_examples=200, deadline=None)
@given(place=st.integers(0, 200), mask=st.integers(1, 255))
def test_flipped_header_never_raises_anything_else(place: int, mask: int) -> None:
    content = bytearray(tensors(a=b"12", b=b"34"))
    content[place % len(content)] ^= mask
    with suppress(ModelError):
        check(bytes(content))
