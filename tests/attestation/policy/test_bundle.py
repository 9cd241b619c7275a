"""Bundles: one form, one signer, one time, one direction."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ephemeralml.attestation.policy import MAX_POLICY_BYTES, TrustPolicy, load_policy
from ephemeralml.attestation.policy_bundle import (
    CONTENT_TYPE,
    MAX_LIFETIME_S,
    PolicyBundle,
    Position,
    canonical_policy,
    check_in_time,
    check_succession,
    make_policy_bundle,
    open_policy_bundle,
    peek_policy_bundle,
    verify_policy_bundle,
)
from ephemeralml.wire.cose import sign1
from ephemeralml.wire.encoding import encode, sha256
from ephemeralml.wire.errors import (
    AppraisalError,
    EndorsementsError,
    Error,
    MalformedError,
    VerificationError,
)

from .samples import DAY, KEY, NOW, OTHER_KEY, OTHER_ROOT, ROOT, after, first, opened, policy, statement

PROTECTED: dict[int, object] = {1: -8, 3: CONTENT_TYPE}
PAYLOAD: dict[int, object] = {
    1: 1,
    2: "prod",
    3: 1,
    4: NOW,
    5: NOW,
    6: NOW + DAY,
    7: canonical_policy(policy()),
}


def signed(**changes: object) -> bytes:
    """A bundle of raw fields, correctly signed; ``_9=1`` sets field 9, None leaves a field out."""
    fields = {**PAYLOAD, **{int(key[1:]): value for key, value in changes.items()}}
    payload = encode({key: value for key, value in fields.items() if value is not None})
    return sign1(payload, KEY, protected=PROTECTED)


def code_of(data: bytes) -> str:
    with pytest.raises(Error) as caught:
        open_policy_bundle(data, ROOT)
    return caught.value.code


def test_a_bundle_carries_its_policy_whole() -> None:
    made = statement(previous=b"p" * 32, serial=7, rollback_of=3)
    bundle = verify_policy_bundle(make_policy_bundle(made, KEY), ROOT, NOW)
    assert bundle.statement == made
    assert bundle.policy == policy()
    assert bundle.label == "prod#7"
    assert bundle.position == Position("prod", 7, sha256(bundle.data))


def test_the_raw_form_is_the_one_that_is_made() -> None:
    assert signed() == first(expires=NOW + DAY)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"_1": 2}, "UNKNOWN_VERSION"),
        ({"_1": True}, "WRONG_TYPE"),
        ({"_2": "Prod"}, "BAD_POLICY_NAME"),
        ({"_2": "prod\n"}, "BAD_POLICY_NAME"),
        ({"_2": "../a"}, "BAD_POLICY_NAME"),
        ({"_2": ""}, "OUT_OF_BOUNDS"),
        ({"_2": "a" * 64}, "OUT_OF_BOUNDS"),
        ({"_3": 0}, "OUT_OF_BOUNDS"),
        ({"_3": -1}, "OUT_OF_BOUNDS"),
        ({"_3": 1.0}, "WRONG_TYPE"),
        ({"_3": 2}, "BAD_POLICY_HISTORY"),
        ({"_8": b"p" * 32}, "BAD_POLICY_HISTORY"),
        ({"_3": 2, "_8": b"p" * 31}, "OUT_OF_BOUNDS"),
        ({"_3": 2, "_8": b"p" * 32, "_9": 2}, "BAD_POLICY_HISTORY"),
        ({"_9": 1}, "BAD_POLICY_HISTORY"),
        ({"_9": 0}, "OUT_OF_BOUNDS"),
        ({"_4": NOW + 1}, "BAD_POLICY_TIMES"),
        ({"_5": NOW + DAY}, "BAD_POLICY_TIMES"),
        ({"_6": NOW}, "BAD_POLICY_TIMES"),
        ({"_6": NOW + MAX_LIFETIME_S + 1}, "BAD_POLICY_TIMES"),
        ({"_6": 1 << 41}, "OUT_OF_BOUNDS"),
        ({"_7": b""}, "OUT_OF_BOUNDS"),
        ({"_7": "{}"}, "WRONG_TYPE"),
        ({"_7": b"{}"}, "BAD_POLICY"),
        ({"_7": b"not JSON"}, "BAD_POLICY"),
        ({"_7": b'{"version":"1","version":"1"}'}, "BAD_POLICY"),
        ({"_7": b'{"version": "1"}'}, "POLICY_NOT_CANONICAL"),
        ({"_7": b'{"version":"\\u0031"}'}, "POLICY_NOT_CANONICAL"),
        ({"_7": b'{"version":"1","models":[]}'}, "POLICY_NOT_CANONICAL"),
        ({"_7": None}, "MISSING_FIELD"),
        ({"_10": 1}, "UNKNOWN_FIELD"),
    ],
)
def test_a_signed_bundle_of_another_form_is_refused(fields: dict[str, object], code: str) -> None:
    assert code_of(signed(**fields)) == code


def test_a_lone_surrogate_is_refused_by_an_error_of_ours() -> None:
    assert code_of(signed(_7=b'{"version":"\\ud800"}')) == "BAD_POLICY"


def test_fields_that_are_left_out_keep_their_meaning_and_their_form() -> None:
    """A policy of an older release, without today's newest fields, is still canonical."""
    bundle = open_policy_bundle(signed(_7=b'{"version":"1"}'), ROOT)
    assert bundle.policy == TrustPolicy(version="1")


@pytest.mark.parametrize(
    "protected",
    [
        {1: -8},
        {1: -8, 3: "application/vnd.ephemeralml.birth+cbor"},
        {1: -8, 3: CONTENT_TYPE, 4: b"kid"},
    ],
)
def test_signatures_for_other_purposes_are_no_bundles(protected: dict[int, object]) -> None:
    assert code_of(sign1(encode(PAYLOAD), KEY, protected=protected)) == "POLICY_HEADER"


def test_an_algorithm_written_as_a_float_is_refused() -> None:
    data = first()
    header = encode(PROTECTED)
    other = encode({1: -8.0, 3: CONTENT_TYPE})
    assert header in data
    assert code_of(data.replace(encode(header), encode(other))) == "POLICY_HEADER"


@pytest.mark.parametrize("root", [b"", ROOT[:31], ROOT + b"\0"])
def test_a_root_is_32_bytes(root: bytes) -> None:
    with pytest.raises(EndorsementsError, match="BAD_POLICY_ROOT"):
        open_policy_bundle(first(), root)


@pytest.mark.parametrize("root", [OTHER_ROOT, bytes(32), bytes([1]) + bytes(31), b"\xff" * 32])
def test_another_root_is_refused(root: bytes) -> None:
    with pytest.raises(VerificationError, match="SIG_FAILED"):
        open_policy_bundle(first(), root)


def test_another_signer_is_refused() -> None:
    with pytest.raises(VerificationError, match="SIG_FAILED"):
        verify_policy_bundle(make_policy_bundle(statement(), OTHER_KEY), ROOT, NOW)


def test_every_flipped_bit_group_is_refused() -> None:
    data = first()
    for index in range(len(data)):
        for mask in (0x01, 0x80, 0xFF):
            broken = bytearray(data)
            broken[index] ^= mask
            with pytest.raises((MalformedError, VerificationError)):
                verify_policy_bundle(bytes(broken), ROOT, NOW)


def test_every_beginning_and_every_addition_is_refused() -> None:
    data = first()
    for size in range(len(data)):
        with pytest.raises(MalformedError):
            open_policy_bundle(data[:size], ROOT)
    assert code_of(data + b"\0") == "CBOR_TRAILING_BYTES"


def test_too_large_a_policy_is_refused_before_it_is_parsed() -> None:
    assert code_of(signed(_7=b" " * (MAX_POLICY_BYTES + 1))) == "OUT_OF_BOUNDS"
    assert code_of(bytes(2 * MAX_POLICY_BYTES)) == "CBOR_TOO_LARGE"


@settings(max_examples=200)
@given(st.binary(max_size=300))
def test_noise_is_refused_by_errors_of_ours(noise: bytes) -> None:
    for act in (peek_policy_bundle, lambda data: open_policy_bundle(data, ROOT)):
        with pytest.raises(Error):
            act(noise)


@settings(max_examples=100)
@given(
    st.dictionaries(
        st.integers(1, 9),
        st.one_of(st.integers(-(1 << 63), 1 << 62), st.binary(max_size=40), st.text(max_size=40)),
    )
)
def test_any_signed_map_is_a_bundle_or_refused(fields: dict[int, object]) -> None:
    data = sign1(encode({**PAYLOAD, **fields}), KEY, protected=PROTECTED)
    try:
        bundle = open_policy_bundle(data, ROOT)
    except Error:
        return
    assert make_policy_bundle(bundle.statement, KEY) == data


@pytest.mark.parametrize(
    ("now", "code"),
    [
        (NOW + 30 * DAY, "POLICY_EXPIRED"),
        (NOW + 30 * DAY - 1, None),
        (NOW, None),
        (NOW - 300, None),
        (NOW - 301, "POLICY_NOT_YET_VALID"),
        (0, "POLICY_NOT_YET_VALID"),
        (1 << 62, "POLICY_EXPIRED"),
    ],
)
def test_time(now: int, code: str | None) -> None:
    if code is None:
        assert verify_policy_bundle(first(), ROOT, now).label == "prod#1"
        return
    with pytest.raises(AppraisalError, match=code) as caught:
        verify_policy_bundle(first(), ROOT, now)
    assert caught.value.findings[0][0] == code


def test_history_is_read_at_any_time() -> None:
    assert opened(first()).label == "prod#1"


@given(st.integers(0, 1 << 40), st.integers(1, MAX_LIFETIME_S), st.integers(0, 1 << 41))
def test_a_bundle_is_in_time_from_its_start_to_its_end(begins: int, lifetime: int, now: int) -> None:
    ends = min(begins + lifetime, 1 << 40)
    if ends <= begins:
        return
    bundle = opened(first(issued_at=begins, not_before=begins, expires=ends))
    if begins - 300 <= now < ends:
        check_in_time(bundle, now)
    else:
        with pytest.raises(AppraisalError):
            check_in_time(bundle, now)


# ------------------------------------------------------------------- succession


def test_what_follows_is_taken_and_the_same_again_too() -> None:
    one = first()
    check_succession(opened(after(one)), opened(one).position, unbroken=True)
    check_succession(opened(one), opened(one).position, unbroken=True)


@pytest.mark.parametrize("unbroken", [False, True])
def test_what_does_not_follow(unbroken: bool) -> None:
    one = first()
    two = after(one)
    held = opened(two).position

    def code(data: bytes) -> str:
        with pytest.raises(AppraisalError) as caught:
            check_succession(opened(data), held, unbroken=unbroken)
        return caught.value.code

    assert code(one) == "POLICY_DOWNGRADE"
    assert code(after(one, expires=NOW + DAY)) == "POLICY_FORKED"
    assert code(after(two, name="other")) == "POLICY_OTHER_NAME"
    assert code(after(two, previous=b"x" * 32)) == "POLICY_HISTORY_BROKEN"


def test_missed_versions_pass_for_readers_and_not_for_the_history() -> None:
    one = first()
    three = opened(after(after(one)))
    check_succession(three, opened(one).position)
    with pytest.raises(AppraisalError, match="POLICY_HISTORY_BROKEN"):
        check_succession(three, opened(one).position, unbroken=True)


# ------------------------------------------------------------------- making


@pytest.mark.parametrize(
    "changes",
    [{"name": "Bad"}, {"serial": 0}, {"policy": b"{}"}, {"expires": NOW}, {"rollback_of": 1}],
)
def test_nothing_is_signed_that_nobody_would_read(changes: dict[str, object]) -> None:
    with pytest.raises(MalformedError):
        make_policy_bundle(statement(**changes), KEY)


def test_bundles_come_from_the_verifier_only() -> None:
    with pytest.raises(TypeError):
        PolicyBundle(statement(), policy(), b"", object())


texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)


@given(texts, texts)
def test_canonical_policies_are_read_back_equal(version: str, model: str) -> None:
    wanted = policy().model_copy(update={"version": version})
    wanted = replace_model(wanted, model)
    data = canonical_policy(wanted)
    assert load_policy(data) == wanted
    assert opened(first(policy=data)).policy == wanted
    assert json.loads(data)["version"] == version
    assert canonical_policy(load_policy(data)) == data


def replace_model(value: TrustPolicy, model: str) -> TrustPolicy:
    return value.model_copy(update={"models": (value.models[0].model_copy(update={"id": model}),)})
