"""Padmé lengths and the padded form."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ephemeralml.wire.padding import pad, padme, unpad

from .strategies import mutations, refuses

FRAME = 4


def test_lengths_of_the_published_algorithm() -> None:
    for size, padded in ((0, 0), (1, 1), (2, 2), (8, 8), (9, 10), (100, 104), (1025, 1088), (10**6, 1015808)):
        assert padme(size) == padded


@given(st.integers(2, 2**40))
def test_overhead_is_at_most_twelve_percent(size: int) -> None:
    padded = padme(size)
    assert size <= padded <= size * 1.12
    assert padme(padded) == padded
    assert padme(size + 1) >= padded


@given(st.integers(2, 2**40))
def test_few_lengths_are_told_apart(size: int) -> None:
    """A padded length E bits long keeps at most the bits of floor(log2 E) + 1 of precision (PURBs, 4.2)."""
    padded = padme(size)
    exponent = size.bit_length() - 1
    kept = exponent.bit_length() + 1
    assert padded % (1 << max(0, exponent + 1 - kept)) == 0


def test_there_are_few_lengths_up_to_a_mebibyte() -> None:
    assert len({padme(size) for size in range(1 << 20)}) < 500


@given(st.binary(max_size=3000))
def test_round_trip(content: bytes) -> None:
    padded = pad(content)
    assert unpad(padded) == content
    assert len(padded) == padme(len(content) + FRAME)


@given(st.binary(max_size=64))
def test_nothing_but_a_padded_form_is_unpadded(data: bytes) -> None:
    try:
        content = unpad(data)
    except Exception:
        refuses("PADDING", unpad, data)
    else:
        assert pad(content) == data


def test_mutations_of_a_padded_form_are_refused_or_another_padded_form() -> None:
    for size in (0, 5, 9, 100):
        padded = pad(bytes(range(size)))
        for changed in mutations(padded):
            try:
                content = unpad(changed)
            except Exception:
                refuses("PADDING", unpad, changed)
            else:
                assert pad(content) == changed


def test_a_length_of_four_gigabytes_is_only_refused() -> None:
    refuses("PADDING", unpad, b"\xff\xff\xff\xff" + bytes(100))
    refuses("PADDING", unpad, b"")
