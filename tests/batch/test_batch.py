"""Batches: whole ones pass, and each fault is named with its item."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ephemeralml.receipts.batch_statement import (
    BatchStatement,
    make_batch_statement,
    peek_batch_statement,
    verify_batch_statement,
)
from ephemeralml.receipts.batch_verify import BatchFault, check_outcomes, read_batch, verify_batch
from ephemeralml.receipts.inclusion import verify_inclusion_receipt
from ephemeralml.receipts.outcome import make_outcome
from ephemeralml.wire.encoding import encode
from ephemeralml.wire.errors import Error, MalformedError, VerificationError

from .samples import BATCH, KEY, OTHER_KEY, PUBLIC, file, head, outcome, outcomes, sealed

TEN = outcomes(10)
STATEMENT = sealed(TEN)
OTHERS = replace(outcome(3), batch_id=b"\x09" * 16)


def faults(signed: list[bytes]) -> list[tuple[str, int]]:
    with pytest.raises(BatchFault) as caught:
        check_outcomes(head(10), signed, lambda _: PUBLIC)
    assert caught.value.code == caught.value.faults[0].code
    return [(fault.code, fault.index) for fault in caught.value.faults]


def test_a_whole_batch_and_each_item_of_it() -> None:
    for index, signed in enumerate(TEN):
        found = verify_batch(STATEMENT, PUBLIC, file(TEN), item=index, key_of=lambda _: PUBLIC)
        assert found.unchecked == 0
        assert found.item == outcome(index)
        assert found.receipt is not None
        included = verify_inclusion_receipt(found.receipt, signed, PUBLIC)
        assert (included.index, included.size, included.batch_id) == (index, 10, BATCH)
        with pytest.raises(VerificationError):
            verify_inclusion_receipt(found.receipt, TEN[(index + 1) % 10], PUBLIC)
    assert found.statement.counts == {"succeeded": 8, "failed": 2}


@pytest.mark.parametrize(
    ("signed", "expected"),
    [
        ([*TEN[:4], *TEN[5:]], [("DROPPED", 4)]),
        (TEN[:9], [("DROPPED", 9)]),
        ([], [("DROPPED", index) for index in range(10)]),
        ([*TEN, TEN[2]], [("DOUBLED", 2)]),
        ([*TEN[:3], TEN[2], *TEN[3:]], [("DOUBLED", 2)]),
        ([*TEN[:3], TEN[2], *TEN[4:]], [("DOUBLED", 2), ("DROPPED", 3)]),
        ([*TEN[:6], TEN[7], TEN[6], *TEN[8:]], [("SWAPPED", 6), ("SWAPPED", 7)]),
        ([*TEN[:3], make_outcome(OTHERS, KEY), *TEN[4:]], [("FOREIGN", 3)]),
        ([*TEN, make_outcome(OTHERS, KEY)], [("FOREIGN", 10)]),
        ([*TEN, make_outcome(outcome(10), KEY)], [("FOREIGN", 10)]),
        ([make_outcome(replace(outcome(0), pool="other"), KEY), *TEN[1:]], [("FOREIGN", 0)]),
        (
            [make_outcome(replace(outcome(0), batch_id=None, index=None), KEY), *TEN[1:]],
            [("FOREIGN", 0)],
        ),
        ([*TEN[:5], make_outcome(outcome(5), OTHER_KEY), *TEN[6:]], [("BAD_SIGNATURE", 5)]),
        ([*TEN[:5], b"\xa0", *TEN[6:]], [("MALFORMED", 5)]),
    ],
)
def test_faults_are_named(signed: list[bytes], expected: list[tuple[str, int]]) -> None:
    assert faults(signed) == expected


def test_an_endless_stream_ends() -> None:
    taken = 0

    def endless() -> object:
        nonlocal taken
        while True:
            taken += 1
            yield TEN[0]

    with pytest.raises(BatchFault, match="DOUBLED item 0"):
        check_outcomes(head(10), endless(), lambda _: PUBLIC)  # type: ignore[arg-type]
    assert taken < 40


def test_a_worker_that_is_not_trusted_is_named() -> None:
    def refuse(_: bytes) -> bytes:
        raise VerificationError("KEY_BINDING_FAILED")

    with pytest.raises(BatchFault, match="UNTRUSTED_WORKER item 0"):
        check_outcomes(head(10), TEN, refuse)


def test_only_what_was_sealed_verifies() -> None:
    other = [*TEN[:9], make_outcome(replace(outcome(9), iat=5), KEY)]  # sound, but another one
    with pytest.raises(VerificationError, match="OUTPUT_ROOT_MISMATCH"):
        verify_batch(STATEMENT, PUBLIC, file(other))
    with pytest.raises(VerificationError, match="SIG_FAILED"):
        verify_batch(STATEMENT, OTHER_KEY.public_key().public_bytes_raw(), file(TEN))
    with pytest.raises(VerificationError, match="BATCH_MISMATCH"):
        verify_batch(STATEMENT, PUBLIC, file(TEN[:9]))
    with pytest.raises(BatchFault, match="DROPPED item 9"):
        verify_batch(STATEMENT, PUBLIC, file(TEN[:9], head(10)))
    with pytest.raises(VerificationError, match="INPUT_ROOT_MISMATCH"):
        verify_batch(STATEMENT, PUBLIC, file(TEN), input_root=bytes(32))
    with pytest.raises(VerificationError, match="FOREIGN"):
        verify_batch(STATEMENT, PUBLIC, file(TEN), item=10)


def change(**fields: object) -> Callable[[], bytes]:
    return lambda: make_batch_statement(replace(peek_batch_statement(STATEMENT), **fields), KEY)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (change(counts={"succeeded": 9}), "BAD_COUNTS"),
        (change(counts={"succeeded": 10, "failed": 0}), "OUT_OF_BOUNDS"),
        (change(counts={"lost": 10}), "UNKNOWN_FIELD"),
        (change(output_root=b""), "OUT_OF_BOUNDS"),
        (change(iat=0), "OUT_OF_BOUNDS"),
        (change(head=replace(head(10), count=50_001)), "OUT_OF_BOUNDS"),
        (change(head=replace(head(10), pool="No")), "BAD_POOL"),
    ],
)
def test_a_statement_that_contradicts_itself_is_not_signed(make: Callable[[], bytes], code: str) -> None:
    with pytest.raises(MalformedError, match=code):
        make()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xa0",
        encode(head(10).encode())[:-1],
        encode(b"\xa0"),
        b"\x58\x05hello",
        encode(head(10).encode()) + b"\x59\x04\x01" + bytes(1025),
        encode(head(10).encode()) + b"\x58",
        encode(head(10).encode()) + b"\x59\x00\x01a",
    ],
)
def test_a_batch_file_is_read_strictly(data: bytes) -> None:
    with pytest.raises(MalformedError):
        list(read_batch(io.BytesIO(data))[1])


FILE = file(TEN).getvalue()
RECEIPT = verify_batch(STATEMENT, PUBLIC, file(TEN), item=3).receipt or b""


@pytest.mark.parametrize("place", range(len(STATEMENT)))
def test_any_flip_in_a_statement_is_refused(place: int) -> None:
    with pytest.raises(Error):
        verify_batch_statement(flip(STATEMENT, place, 1 << place % 8), PUBLIC)


@pytest.mark.parametrize("place", range(len(RECEIPT)))
def test_any_flip_in_an_inclusion_receipt_is_refused(place: int) -> None:
    with pytest.raises(Error):
        verify_inclusion_receipt(flip(RECEIPT, place, 1 << place % 8), TEN[3], PUBLIC)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(FILE) - 1), st.integers(1, 255))
def test_any_flip_in_a_batch_file_is_refused(place: int, bits: int) -> None:
    with pytest.raises(Error):
        verify_batch(STATEMENT, PUBLIC, io.BytesIO(flip(FILE, place, bits)))


@given(st.binary(max_size=200))
def test_garbage_gives_our_errors_only(data: bytes) -> None:
    for act in (
        lambda: peek_batch_statement(data),
        lambda: BatchStatement.decode(data),
        lambda: list(read_batch(io.BytesIO(data))[1]),
        lambda: verify_inclusion_receipt(data, TEN[0], PUBLIC),
    ):
        with pytest.raises(Error):
            act()


def test_fifty_thousand_items() -> None:
    signed = outcomes(50_000)
    statement, whole = sealed(signed), file(signed)
    found = verify_batch(statement, PUBLIC, whole, item=31_415)
    assert found.item == outcome(31_415)
    assert found.statement.counts == {"succeeded": 40_000, "failed": 10_000}


def flip(data: bytes, place: int, bits: int) -> bytes:
    return data[:place] + bytes((data[place] ^ bits,)) + data[place + 1 :]
