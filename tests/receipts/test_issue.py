"""What is issued: one encoding, the same as the library's, and never an unsound receipt."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ephemeralml.attestation.evidence import Measurements
from ephemeralml.receipts.claims import Claims, claims_map, decode_claims, encode_claims
from ephemeralml.receipts.issue import CONTENT_TYPE, issue, signed_bytes
from ephemeralml.receipts.rules import CLAIM_RULES
from ephemeralml.receipts.verify import verify_receipt
from ephemeralml.wire.cose import decode_sign1, sig_structure, sign1, sign1_with_library, verify_with_library
from ephemeralml.wire.encoding import encode
from ephemeralml.wire.errors import MalformedError

from .samples import CLAIMS, KEY, NOW, POLICY, PUBLIC

HEADER: dict[int, object] = {1: -8, 3: CONTENT_TYPE}


def test_the_fast_path_equals_the_library_and_the_general_path() -> None:
    payload = encode_claims(CLAIMS)
    receipt = issue(CLAIMS, KEY)
    assert receipt == sign1_with_library(payload, KEY, HEADER)
    assert receipt == sign1(payload, KEY, protected=HEADER)
    assert verify_with_library(receipt, PUBLIC)


def test_the_signature_covers_the_sig_structure() -> None:
    message = decode_sign1(issue(CLAIMS, KEY))
    assert signed_bytes(message.payload) == sig_structure(message.protected_bytes, message.payload)


def test_what_is_issued_verifies_and_reads_back() -> None:
    verification = verify_receipt(issue(CLAIMS, KEY), PUBLIC, POLICY, NOW)
    assert verification.passed
    assert verification.claims == CLAIMS == decode_claims(encode_claims(CLAIMS))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"iss": ""}, "TEXT_LENGTH"),
        ({"iat": 0}, "ZERO_IAT"),
        ({"cti": bytes(16)}, "ZERO_CTI"),
        ({"eat_nonce": b"short"}, "BAD_NONCE_LENGTH"),
        ({"model_version": "v" * 129}, "TEXT_LENGTH"),
        ({"model_hash": bytes(32)}, "ZERO_MODEL_HASH"),
        ({"request_hash": None}, "WRONG_TYPE"),
        ({"enclave_measurements": Measurements("nitro-pcr", {})}, "MISSING_CLAIM"),
        ({"enclave_measurements": Measurements("nitro-pcr", {"pcr5": bytes(48)})}, "UNKNOWN_MEASUREMENT"),
        ({"execution_time_ms": 1.5}, "WRONG_TYPE"),
        ({"sequence_number": 1 << 64}, "WRONG_TYPE"),
        ({"memory_peak_mb": True}, "WRONG_TYPE"),
        ({"security_mode": "test"}, "UNKNOWN_SECURITY_MODE"),
        ({"model_hash_scheme": "md5"}, "UNKNOWN_MODEL_HASH_SCHEME"),
        ({"iss": "\ud800"}, "CBOR_BAD_UTF8"),
    ],
)
def test_nothing_is_signed_that_a_verifier_would_refuse(change: dict[str, Any], code: str) -> None:
    with pytest.raises(MalformedError) as caught:
        issue(replace(CLAIMS, **change), KEY)
    assert caught.value.code == code


def test_the_map_holds_every_claim_and_leaves_absent_ones_out() -> None:
    assert claims_map(CLAIMS).keys() == {rule.key for rule in CLAIM_RULES} | {265}
    bare = replace(CLAIMS, eat_nonce=None, model_hash_scheme=None)
    assert claims_map(CLAIMS).keys() - claims_map(bare).keys() == {10, -65549}


def test_reading_claims_judges_them() -> None:
    with pytest.raises(MalformedError, match="ZERO_IAT"):
        decode_claims(encode({**claims_map(CLAIMS), 6: 0}))


@pytest.mark.parametrize("payload", [b"", b"\xa0", b"\x80", b"\xff", b"\xa1\x01\x01"])
def test_a_payload_that_is_none_has_one_kind_of_error(payload: bytes) -> None:
    with pytest.raises(MalformedError):
        decode_claims(payload)


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=32)
hashes = st.binary(min_size=32, max_size=32).filter(any)
uints = st.integers(0, 2**64 - 1)
registers = st.fixed_dictionaries(
    {f"pcr{index}": st.binary(min_size=48, max_size=48) for index in (0, 1, 2)},
    optional={f"pcr{index}": st.binary(min_size=48, max_size=48) for index in (3, 4)},
)
any_claims = st.builds(
    Claims,
    iss=texts,
    iat=st.integers(1, NOW),
    cti=st.binary(min_size=16, max_size=16).filter(any),
    eat_nonce=st.none() | st.binary(min_size=8, max_size=64),
    model_id=texts,
    model_version=texts,
    model_hash=hashes,
    request_hash=hashes,
    response_hash=hashes,
    attestation_doc_hash=hashes,
    enclave_measurements=st.builds(Measurements, st.sampled_from(["nitro-pcr", "tdx-mrtd-rtmr"]), registers),
    policy_version=texts,
    sequence_number=uints,
    execution_time_ms=uints,
    memory_peak_mb=uints,
    security_mode=st.just("production"),
    model_hash_scheme=st.none() | st.sampled_from(["sha256-single", "sha256-concat", "sha256-manifest"]),
)


@given(any_claims)
def test_any_claims_go_there_and_back(claims: Claims) -> None:
    receipt = issue(claims, KEY)
    verification = verify_receipt(receipt, PUBLIC, None, NOW)
    assert verification.passed
    assert verification.claims == claims
    assert sign1(encode_claims(claims), KEY, protected=HEADER) == receipt
