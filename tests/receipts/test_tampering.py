"""Flipped bytes, lost and added ones: always refused, always with a code of ours."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ephemeralml.receipts.issue import issue
from ephemeralml.receipts.outcome import make_outcome, peek_outcome, verify_outcome
from ephemeralml.receipts.verify import verify_receipt
from ephemeralml.wire.cose import verify_ed25519
from ephemeralml.wire.errors import Error, MalformedError, VerificationError

from ..corpus import corpus
from .samples import CLAIMS, KEY, NOW, OUTCOME, PUBLIC

RECEIPT = issue(CLAIMS, KEY)
STATEMENT = make_outcome(OUTCOME, KEY)
CODE = re.compile(r"[A-Z][A-Z0-9_]+")


def flipped(data: bytes, place: int, mask: int) -> bytes:
    return data[:place] + bytes([data[place] ^ mask]) + data[place + 1 :]


def codes_of(receipt: bytes) -> tuple[str, ...]:
    verification = verify_receipt(receipt, PUBLIC, None, NOW)
    assert not verification.passed
    assert verification.level == "none"
    return verification.codes


@pytest.mark.parametrize("mask", [0x01, 0x20, 0x80, 0xFF])
def test_every_flipped_byte_of_a_receipt_is_refused(mask: int) -> None:
    for place in range(len(RECEIPT)):
        codes = codes_of(flipped(RECEIPT, place, mask))
        assert codes
        assert all(CODE.fullmatch(code) for code in codes)


@pytest.mark.parametrize("mask", [0x01, 0x20, 0x80, 0xFF])
def test_every_flipped_byte_of_an_outcome_is_refused(mask: int) -> None:
    for place in range(len(STATEMENT)):
        with pytest.raises((MalformedError, VerificationError)) as caught:
            verify_outcome(flipped(STATEMENT, place, mask), PUBLIC)
        assert CODE.fullmatch(caught.value.code)


@given(st.integers(0, len(RECEIPT) - 1), st.binary(max_size=8), st.integers(0, 8))
def test_lost_and_added_bytes_are_refused(place: int, added: bytes, lost: int) -> None:
    changed = RECEIPT[:place] + added + RECEIPT[place + lost :]
    if changed != RECEIPT:
        assert codes_of(changed)
    assert codes_of(RECEIPT + (added or b"\x00")) in (("TRAILING_BYTES",), ("COSE_DECODE_FAILED",))


@given(st.binary(max_size=200))
def test_noise_is_no_outcome(data: bytes) -> None:
    for read in (peek_outcome, lambda given: verify_outcome(given, PUBLIC)):
        with pytest.raises(Error):
            read(data)


def test_neither_kind_of_message_passes_for_the_other() -> None:
    assert codes_of(STATEMENT) == ("BAD_CONTENT_TYPE",)
    with pytest.raises(MalformedError, match="BAD_PROTECTED_HEADER"):
        verify_outcome(RECEIPT[:1024], PUBLIC)


def refusal(key: bytes, message: bytes, signature: bytes) -> str | None:
    try:
        verify_ed25519(key, message, signature)
    except VerificationError as error:
        return error.code
    return None


def test_wycheproof_signatures() -> None:
    suite = json.loads(corpus("vectors/wycheproof/ed25519_test.json").read_text())
    cases = [
        (bytes.fromhex(group["publicKey"]["pk"]), test)
        for group in suite["testGroups"]
        for test in group["tests"]
    ]
    assert len(cases) == suite["numberOfTests"]
    for key, test in cases:
        code = refusal(key, bytes.fromhex(test["msg"]), bytes.fromhex(test["sig"]))
        assert (code is None) == (test["result"] == "valid"), test["tcId"]
        assert code in (None, "SIG_FAILED", "BAD_SIG_LENGTH")
