"""The small DER reader: one form for one value, and nothing left over."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ephemeralml.attestation.der import MAX_ELEMENTS, SEQUENCE, Element, read_elements, read_one
from ephemeralml.wire.errors import MalformedError

from .forge import der


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", ()),
        (b"\x05\x00", (Element(5, b""),)),
        (b"\x02\x01\x07\x04\x02ab", (Element(2, b"\x07"), Element(4, b"ab"))),
        (b"\x04\x81\x80" + bytes(128), (Element(4, bytes(128)),)),
        (b"\x04\x82\x01\x00" + bytes(256), (Element(4, bytes(256)),)),
        (b"\xa6\x02\x05\x00", (Element(0xA6, b"\x05\x00"),)),
    ],
)
def test_elements_are_read(data: bytes, found: tuple[Element, ...]) -> None:
    assert read_elements(data) == found


@pytest.mark.parametrize(
    "data",
    [
        b"\x04",
        b"\x04\x01",
        b"\x04\x02a",
        b"\x04\x80\x00\x00",  # indefinite
        b"\x04\x81",
        b"\x04\x81\x7f" + bytes(127),  # a longer form than needed
        b"\x04\x82\x00\xff" + bytes(255),
        b"\x04\x83\x01\x00\x00" + bytes(65_536),
        b"\x04\x82\x01",
        b"\x1f\x20\x00",  # a tag of more bytes
        b"\x05\x00" * (MAX_ELEMENTS + 1),
    ],
)
def test_another_form_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedError, match="BAD_DER"):
        read_elements(data)


@pytest.mark.parametrize("data", [b"", b"\x04\x00", b"\x30\x00\x30\x00", b"\x30\x00\x05\x00"])
def test_one_element_means_one(data: bytes) -> None:
    with pytest.raises(MalformedError, match="BAD_DER"):
        read_one(data, SEQUENCE)


@given(st.lists(st.tuples(st.integers(0, 30), st.binary(max_size=400)), max_size=8))
def test_what_is_written_is_read(elements: list[tuple[int, bytes]]) -> None:
    data = b"".join(der(tag, value) for tag, value in elements)
    assert read_elements(data) == tuple(Element(tag, value) for tag, value in elements)


@given(st.binary(max_size=200))
def test_what_is_read_is_the_only_form(data: bytes) -> None:
    try:
        found = read_elements(data)
    except MalformedError:
        return
    assert b"".join(der(element.tag, element.value) for element in found) == data
