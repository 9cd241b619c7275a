"""Orders of a pool's operator: which bytes are obeyed, and that what has been said stays said."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ephemeralml.attestation.key_release.epochs import MAX_EPOCH, TURNS
from ephemeralml.attestation.key_release.order_store import MAX_ORDERS, place_order, read_orders
from ephemeralml.attestation.key_release.orders import (
    CONTENT_TYPE,
    LIFETIME_S,
    MAX_LIFETIME_S,
    MAX_REVOKED,
    MIN_LIFETIME_S,
    Order,
    Standing,
    make_order,
    verify_order,
)
from ephemeralml.attestation.key_release.stored import order_name, orders_prefix
from ephemeralml.attestation.policy import PoolOperator, TrustPolicy
from ephemeralml.broker_config.blobs import LocalBlobStore
from ephemeralml.wire.cose import ALG_EDDSA, HEADER_ALG, HEADER_CONTENT_TYPE, sign1
from ephemeralml.wire.encoding import decode, encode
from ephemeralml.wire.errors import AppraisalError, DeliveryError, Error, MalformedError, VerificationError

from ..attestation.policy.samples import KEY, NOW, OTHER_KEY, OTHER_ROOT, ROOT

POOL = "minilm"
POLICY = TrustPolicy(version="1", operators=(PoolOperator(key=ROOT.hex(), pools=(POOL,)),))
NEWEST = 100 * TURNS - 1
PROTECTED: dict[int, object] = {HEADER_ALG: ALG_EDDSA, HEADER_CONTENT_TYPE: CONTENT_TYPE}
REVOKED = Order(POOL, 7, "revoke", 5, 6, ((3, b""), (5, b"k" * 32)), NOW, NOW + LIFETIME_S)
ROTATED = replace(REVOKED, kind="rotate", revoked=())


def obeyed(data: bytes, **changes: Any) -> Order:
    given: dict[str, Any] = {"pool": POOL, "policy": POLICY, "newest_epoch": NEWEST, "now": NOW, **changes}
    return verify_order(data, **given)


def signed(payload: object, **changes: Any) -> bytes:
    """Any payload under the operator's key: what only the form can refuse."""
    return sign1(encode(payload), KEY, **{"protected": PROTECTED, **changes})


def fields(order: Order = REVOKED) -> dict[int, Any]:
    value = decode(order.encode())
    assert isinstance(value, dict)
    return value


@pytest.mark.parametrize("order", [REVOKED, ROTATED])
def test_an_order_is_obeyed_as_it_was_given(order: Order) -> None:
    assert obeyed(make_order(order, KEY)) == order


@pytest.mark.parametrize("order", [REVOKED, ROTATED])
def test_no_byte_can_be_changed_left_out_or_added(order: Order) -> None:
    data = make_order(order, KEY)
    for place, flip in itertools.product(range(len(data)), (0x01, 0x80, 0xFF)):
        changed = bytearray(data)
        changed[place] ^= flip
        with pytest.raises(Error):
            obeyed(bytes(changed))
    for cut in range(len(data)):
        with pytest.raises(Error):
            obeyed(data[:cut])
    with pytest.raises(MalformedError):
        obeyed(data + b"\x00")


def test_a_signature_that_fits_another_order_is_worth_nothing() -> None:
    payload = REVOKED.encode()
    mine, other = make_order(REVOKED, KEY), make_order(replace(REVOKED, serial=8), KEY)
    mixed = mine[:-64] + other[-64:]
    assert payload in mixed
    with pytest.raises(AppraisalError, match="ORDER_NOT_BY_OPERATOR"):
        obeyed(mixed)


WRONG: dict[int, tuple[object, ...]] = {
    1: (0, 2, True, 1.0, "1", None),
    2: ("", "UPPER", "a/b", "-a", "a" * 64, b"minilm", 1),
    3: (0, -1, 1.0, True, "7", 1 << 64),
    4: ("", "Revoke", "revoked", b"revoke", 1),
    5: (0, -1, 7, 4, 5.0, True, MAX_EPOCH + 1),
    6: (0, -1, 4, 6.0, True, MAX_EPOCH + 1, TURNS - 1, 3 * TURNS - 1),
    7: (
        None,
        {},
        [[5]],
        [[5, b"k" * 32, 1]],
        [[5, b"k" * 31]],
        [[5, "k" * 32]],
        [[5.0, b""]],
        [[True, b""], [5, b""]],
        [[0, b""], [5, b""]],
        [[5, b""], [3, b""]],
        [[5, b""], [5, b"k" * 32]],
        [[5, b""], [7, b""]],
        [[3, b""]],
        [],
        [[epoch, b""] for epoch in range(1, MAX_REVOKED + 2)],
    ),
    8: (-1, 1.0, True, (1 << 40) + 1, NOW + LIFETIME_S),
    9: (-1, 1.0, NOW, NOW + MIN_LIFETIME_S - 1, NOW + MAX_LIFETIME_S + 1),
}


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in WRONG.items() for value in values]
)
def test_what_is_not_of_its_form_is_refused_though_the_operator_signed_it(field: int, value: object) -> None:
    with pytest.raises(MalformedError):
        obeyed(signed({**fields(), field: value}))


@pytest.mark.parametrize("field", range(1, 10))
def test_no_field_may_be_missing(field: int) -> None:
    left = {key: value for key, value in fields().items() if key != field}
    with pytest.raises(MalformedError):
        obeyed(signed(left))


@pytest.mark.parametrize("payload", [[], 1, None, fields() | {10: 1}, {"x": 1}])
def test_nothing_may_be_added(payload: object) -> None:
    with pytest.raises(MalformedError):
        obeyed(signed(payload))


@pytest.mark.parametrize(
    "changes",
    [
        {"protected": {HEADER_ALG: ALG_EDDSA}},
        {"protected": {**PROTECTED, HEADER_CONTENT_TYPE: "application/vnd.ephemeralml.birth+cbor"}},
        {"protected": {**PROTECTED, 4: b"kid"}},
    ],
)
def test_what_was_signed_as_something_else_is_no_order(changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedError, match="ORDER_HEADER"):
        obeyed(signed(fields(), **changes))


@pytest.mark.parametrize("order", [replace(REVOKED, through=TURNS - 1), replace(REVOKED, serial=0)])
def test_what_no_worker_would_read_is_not_signed(order: Order) -> None:
    with pytest.raises(MalformedError):
        make_order(order, KEY)


@pytest.mark.parametrize(
    ("changes", "kind", "code"),
    [
        ({"pool": "other"}, VerificationError, "ORDER_POOL"),
        ({"policy": TrustPolicy(version="1")}, AppraisalError, "ORDER_NOT_BY_OPERATOR"),
        (
            {
                "policy": TrustPolicy(
                    version="1", operators=(PoolOperator(key=OTHER_ROOT.hex(), pools=(POOL,)),)
                )
            },
            AppraisalError,
            "ORDER_NOT_BY_OPERATOR",
        ),
        (
            {"policy": TrustPolicy(version="1", operators=(PoolOperator(key=ROOT.hex(), pools=("other",)),))},
            AppraisalError,
            "ORDER_NOT_BY_OPERATOR",
        ),
        ({"now": NOW - 301}, VerificationError, "ORDER_FUTURE"),
        ({"now": NOW + LIFETIME_S}, AppraisalError, "ORDER_EXPIRED"),
        ({"newest_epoch": REVOKED.through}, AppraisalError, "ORDER_EPOCH"),
    ],
)
def test_who_may_not_order_this_now_is_not_obeyed(
    changes: dict[str, Any], kind: type[Error], code: str
) -> None:
    with pytest.raises(kind, match=code):
        obeyed(make_order(REVOKED, KEY), **changes)


@pytest.mark.parametrize(
    "changes", [{"now": NOW - 300}, {"now": NOW + LIFETIME_S - 1}, {"newest_epoch": REVOKED.through + 1}]
)
def test_the_bounds_themselves_are_obeyed(changes: dict[str, Any]) -> None:
    assert obeyed(make_order(REVOKED, KEY), **changes) == REVOKED


def test_another_operators_signature_does_not_do_beside_the_right_pool() -> None:
    with pytest.raises(AppraisalError, match="ORDER_NOT_BY_OPERATOR"):
        obeyed(make_order(REVOKED, OTHER_KEY))


def test_any_of_several_operators_may_order() -> None:
    both = tuple(PoolOperator(key=key.hex(), pools=(POOL,)) for key in (OTHER_ROOT, ROOT))
    assert obeyed(make_order(REVOKED, KEY), policy=TrustPolicy(version="1", operators=both)) == REVOKED


# ---------------------------------------------------------------- what all say together


@st.composite
def an_order(draw: st.DrawFn) -> Order:
    through = draw(st.integers(1, 40))
    epochs = draw(st.sets(st.integers(1, through), max_size=4))
    ids = st.sampled_from([b"", b"a" * 32, b"b" * 32])
    revoked = tuple((epoch, draw(ids)) for epoch in sorted(epochs))
    serial = draw(st.integers(1, 5))  # conflicts of one serial are common
    return Order(POOL, serial, "rotate", through, through, revoked, NOW, NOW + LIFETIME_S)


@given(orders=st.lists(an_order(), max_size=6), data=st.data())
def test_order_and_repetition_do_not_matter_and_nothing_is_taken_back(
    orders: list[Order], data: st.DataObject
) -> None:
    whole = Standing().with_orders(orders)
    shuffled = data.draw(st.permutations(orders))
    assert Standing().with_orders(shuffled) == whole
    split = data.draw(st.integers(0, len(orders)))
    assert Standing().with_orders(shuffled[:split]).with_orders(shuffled[split:]) == whole
    for old in orders:  # a host replays what it has
        assert whole.with_orders([old]) == whole
        assert whole.serial >= old.serial
        assert whole.through >= old.through
        assert {epoch for epoch, _ in old.revoked} <= whole.revoked.keys()


def test_two_orders_of_one_serial_are_both_obeyed() -> None:
    one = replace(REVOKED, revoked=((5, b"k" * 32),))
    two = replace(REVOKED, epoch=4, through=9, revoked=((4, b"l" * 32), (5, b"")))
    both = Standing().with_orders([one, two])
    assert both == Standing(7, 9, {4: b"l" * 32, 5: b"k" * 32})


@given(orders=st.lists(an_order(), max_size=4), epoch=st.integers(1, 60))
def test_the_next_order_repeats_what_is_revoked(orders: list[Order], epoch: int) -> None:
    standing = Standing().with_orders(orders)
    order = standing.next(POOL, "revoke", epoch, b"k" * 32, NOW)
    assert obeyed(make_order(order, KEY)) == order
    alone = Standing().with_orders([order])
    assert alone == standing.with_orders([order])


def test_the_next_order_keeps_within_what_is_read() -> None:
    standing = Standing(1, MAX_REVOKED + 10, dict.fromkeys(range(1, MAX_REVOKED + 10), b""))
    order = standing.next(POOL, "revoke", MAX_REVOKED + 10, b"k" * 32, NOW)
    assert len(order.revoked) == MAX_REVOKED
    assert order.revoked[-1] == (MAX_REVOKED + 10, b"k" * 32)
    assert obeyed(make_order(order, KEY)) == order


# ---------------------------------------------------------------- in the store


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobStore:
    return LocalBlobStore(tmp_path)


def read(blobs: Any, policy: TrustPolicy = POLICY) -> tuple[list[Order], set[str]]:
    good, refused = read_orders(blobs, POOL, policy, newest_epoch=NEWEST, now=NOW)
    return good, {code for _, code in refused}


def test_good_orders_are_read_and_junk_has_no_say(blobs: LocalBlobStore) -> None:
    for order in (REVOKED, replace(ROTATED, serial=7), replace(REVOKED, serial=8)):
        place_order(blobs, POOL, order.serial, make_order(order, KEY))
    place_order(blobs, POOL, 9, make_order(replace(REVOKED, serial=9), OTHER_KEY))
    blobs.put(orders_prefix(POOL) + "junk", b"junk")
    good, refused = read(blobs)
    assert sorted(order.serial for order in good) == [7, 7, 8]
    assert refused == {"ORDER_NOT_BY_OPERATOR", "CBOR_TRUNCATED"}
    assert read(blobs, TrustPolicy(version="1")) == ([], set())


def test_an_order_moved_to_another_name_or_pool_says_the_same_or_nothing(blobs: LocalBlobStore) -> None:
    data = make_order(REVOKED, KEY)
    blobs.put(order_name(POOL, 99, b"elsewhere"), data)
    blobs.put(order_name(POOL, 1, data), make_order(replace(REVOKED, pool="other"), KEY))
    assert read(blobs) == ([REVOKED], {"ORDER_POOL"})


def test_a_placed_order_is_not_written_over(blobs: LocalBlobStore) -> None:
    data = make_order(REVOKED, KEY)
    blobs.put(order_name(POOL, 7, data), b"junk")
    place_order(blobs, POOL, 7, data)
    assert read(blobs)[0] == []  # the host was first: it could have hidden it as well


def test_only_so_many_orders_are_read(blobs: LocalBlobStore) -> None:
    for serial in range(1, MAX_ORDERS + 5):
        place_order(blobs, POOL, serial, make_order(replace(ROTATED, serial=serial), KEY))
    assert sorted(order.serial for order in read(blobs)[0]) == list(range(5, MAX_ORDERS + 5))


@pytest.mark.parametrize(("retriable", "code"), [(True, None), (False, "BLOB_MISSING")])
def test_a_store_that_is_away_is_told_from_a_blob_that_is_gone(retriable: bool, code: str | None) -> None:
    class Store:
        def list(self, prefix: str) -> Iterator[str]:
            yield prefix + "1"

        def get(self, _: str) -> bytes:
            raise DeliveryError("BLOB_MISSING", retriable=retriable)

    if code is not None:
        assert read(Store()) == ([], {code})
        return
    with pytest.raises(DeliveryError):
        read(Store())
