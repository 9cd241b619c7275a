"""Outcome statements: five ends, one form each."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ephemeralml.receipts.outcome import (
    CONTENT_TYPE,
    STATUSES,
    Outcome,
    make_outcome,
    peek_outcome,
    verify_outcome,
)
from ephemeralml.wire.cose import sign1, sign1_with_library
from ephemeralml.wire.encoding import Tag, decode, encode
from ephemeralml.wire.errors import MalformedError, VerificationError

from .samples import KEY, OTHER_PUBLIC, OUTCOME, PUBLIC

FAILED = replace(OUTCOME, status="failed", code="ENGINE_FAILED", receipt_hash=None, batch_id=None, index=None)
HEADER: dict[int, object] = {1: -8, 3: CONTENT_TYPE}


@pytest.mark.parametrize("status", STATUSES)
def test_every_end_goes_there_and_back(status: Any) -> None:
    outcome = OUTCOME if status == "succeeded" else replace(FAILED, status=status)
    data = make_outcome(outcome, KEY)
    assert verify_outcome(data, PUBLIC) == peek_outcome(data) == outcome
    assert data == sign1_with_library(outcome.encode(), KEY, HEADER)


def test_only_its_own_key_verifies() -> None:
    with pytest.raises(VerificationError, match="SIG_FAILED"):
        verify_outcome(make_outcome(FAILED, KEY), OTHER_PUBLIC)


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (replace(OUTCOME, receipt_hash=None), "BAD_RECEIPT_HASH"),
        (replace(OUTCOME, receipt_hash=b"short"), "OUT_OF_BOUNDS"),
        (replace(OUTCOME, code="DONE"), "BAD_OUTCOME_CODE"),
        (replace(FAILED, code=""), "BAD_OUTCOME_CODE"),
        (replace(FAILED, code="a message"), "BAD_OUTCOME_CODE"),
        (replace(FAILED, code="X" * 65), "OUT_OF_BOUNDS"),
        (replace(FAILED, receipt_hash=bytes(32)), "BAD_RECEIPT_HASH"),
        (replace(FAILED, batch_id=bytes(16)), "MISSING_FIELD"),
        (replace(FAILED, index=0), "MISSING_FIELD"),
        (replace(OUTCOME, index=50_000), "OUT_OF_BOUNDS"),
        (replace(OUTCOME, index=-1), "OUT_OF_BOUNDS"),
        (replace(OUTCOME, batch_id=bytes(15)), "OUT_OF_BOUNDS"),
        (replace(OUTCOME, job_id=bytes(15)), "OUT_OF_BOUNDS"),
        (replace(OUTCOME, pool="No Pool"), "BAD_POOL"),
        (replace(OUTCOME, iat=0), "OUT_OF_BOUNDS"),
        (replace(OUTCOME, job_hash=bytes(31)), "OUT_OF_BOUNDS"),
        (replace(OUTCOME, attestation_doc_hash=bytes(33)), "OUT_OF_BOUNDS"),
    ],
)
def test_an_outcome_that_contradicts_itself_is_not_signed_and_not_read(outcome: Outcome, code: str) -> None:
    with pytest.raises(MalformedError, match=code):
        make_outcome(outcome, KEY)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({1: 2}, "UNKNOWN_VERSION"),
        ({1: True}, "WRONG_TYPE"),
        ({4: "finished"}, "UNKNOWN_STATUS"),
        ({7: None}, "WRONG_TYPE"),
        ({12: 0}, "UNKNOWN_FIELD"),
        ({"1": 0}, "UNKNOWN_FIELD"),
    ],
)
def test_a_signed_payload_is_read_strictly(change: dict[object, object], code: str) -> None:
    fields: Any = decode(OUTCOME.encode())
    with pytest.raises(MalformedError, match=code):
        verify_outcome(sign1(encode({**fields, **change}), KEY, protected=HEADER), PUBLIC)


@pytest.mark.parametrize("key", [2, 3, 4, 5, 6, 7, 8, 9, 10, 11])
def test_no_field_may_be_missing(key: int) -> None:
    fields: Any = decode(OUTCOME.encode())
    del fields[key]
    with pytest.raises(MalformedError):
        verify_outcome(sign1(encode(fields), KEY, protected=HEADER), PUBLIC)


@pytest.mark.parametrize(
    "header", [{1: -8}, {1: -8, 3: 61}, {1: -8, 3: CONTENT_TYPE, 4: b"kid"}, {1: -8, 3: CONTENT_TYPE + "x"}]
)
def test_the_header_is_exactly_one(header: dict[int, object]) -> None:
    with pytest.raises(MalformedError, match="BAD_PROTECTED_HEADER"):
        verify_outcome(sign1(OUTCOME.encode(), KEY, protected=header), PUBLIC)


def test_the_unprotected_header_is_empty_and_the_size_bounded() -> None:
    parts: Any = decode(make_outcome(OUTCOME, KEY), tags=(18,))
    noisy = encode(Tag(18, [parts.value[0], {4: b"kid"}, *parts.value[2:]]))
    with pytest.raises(MalformedError, match="NON_EMPTY_UNPROTECTED"):
        verify_outcome(noisy, PUBLIC)
    with pytest.raises(MalformedError, match="CBOR_TOO_LARGE"):
        peek_outcome(bytes(1025))
