"""Orders of a pool's operator: end an epoch now (``rotate``), or end it and drop its key (``revoke``).

Host, broker and blob store are untrusted and cannot give one: an order is signed by an
Ed25519 key that the trust policy names as operator of the pool. An order can only end
epochs, so whatever is replayed can cause more keys to be made inside TEEs and nothing
weaker. Each order repeats what is still revoked; whoever has seen one order goes back behind
it no more. A host can hide orders: spec/fleet-key.md says what that gives it, and for how long.

The payload is ``{1: 1, 2: pool, 3: serial, 4: kind, 5: epoch, 6: through, 7: [[epoch, key id]…],
8: issued at, 9: expires}``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ...wire.cose import ALG_EDDSA, HEADER_ALG, HEADER_CONTENT_TYPE, decode_sign1, sign1, verify_sign1
from ...wire.encoding import decode, encode
from ...wire.errors import AppraisalError, MalformedError, VerificationError
from ...wire.fields import Fields
from ...wire.header import check_pool
from ..appraise import CLOCK_SKEW_S
from ..policy import TrustPolicy
from .birth import DEFAULT_MAX_AGE_S
from .epochs import MAX_EPOCH, TURNS

CONTENT_TYPE: Final = "application/vnd.ephemeralml.key-order+cbor"
VERSION: Final = 1
MAX_ORDER_BYTES: Final = 16_384
MAX_REVOKED: Final = 128
LIFETIME_S: Final = 30 * 86_400
MIN_LIFETIME_S: Final = DEFAULT_MAX_AGE_S
"""An order outlives every key that it can be about: no key is older when it is adopted."""
MAX_LIFETIME_S: Final = 400 * 86_400

Kind = Literal["rotate", "revoke"]
_PROTECTED: Final[dict[int, object]] = {HEADER_ALG: ALG_EDDSA, HEADER_CONTENT_TYPE: CONTENT_TYPE}
_MAX_TIME: Final = 1 << 40


@dataclass(frozen=True, slots=True)
class Order:
    """What an operator wants; whether an operator wants it is :func:`verify_order`'s to tell.

    :param serial: from 1, one more than the newest that the operator knew.
    :param epoch: the one that this order ends. :param through: the last epoch that is ended by now.
    :param revoked: epochs whose keys must not be used, ascending, each with its key id (32 bytes) or, where
        its certificate could not be read, ``b""``.
    :param issued_at: :param expires: Unix seconds.
    """

    pool: str
    serial: int
    kind: Kind
    epoch: int
    through: int
    revoked: tuple[tuple[int, bytes], ...]
    issued_at: int
    expires: int

    def encode(self) -> bytes:
        """Return the payload bytes."""
        return encode(
            {
                1: VERSION,
                2: self.pool,
                3: self.serial,
                4: self.kind,
                5: self.epoch,
                6: self.through,
                7: [[epoch, key_id] for epoch, key_id in self.revoked],
                8: self.issued_at,
                9: self.expires,
            }
        )


@dataclass(frozen=True, slots=True)
class Standing:
    """What all orders together say. It only ever grows: merging is the same in any order.

    :param serial: the highest seen. :param through: the last epoch that is ended.
    :param revoked: key ids (or ``b""``) of revoked epochs; where orders differ, the greatest.
    """

    serial: int = 0
    through: int = 0
    revoked: Mapping[int, bytes] = field(default_factory=dict)

    def with_orders(self, orders: Iterable[Order]) -> Standing:
        """Return what holds once these orders are known too."""
        serial, through, revoked = self.serial, self.through, dict(self.revoked)
        for order in orders:
            serial, through = max(serial, order.serial), max(through, order.through)
            for epoch, key_id in order.revoked:
                revoked[epoch] = max(revoked.get(epoch, b""), key_id)
        return Standing(serial, through, revoked)

    def next(self, pool: str, kind: Kind, epoch: int, key_id: bytes, now: int) -> Order:
        """Return the order after all these.

        :param epoch: the one to end. :param key_id: of its key, 32 bytes; ``b""`` where nobody knows it.
        :param now: Unix seconds.
        """
        revoked = dict(self.revoked)
        if kind == "revoke":
            revoked[epoch] = key_id or revoked.get(epoch, b"")
        kept = tuple(sorted(revoked.items()))[-MAX_REVOKED:]
        through = max(self.through, epoch)
        return Order(pool, self.serial + 1, kind, epoch, through, kept, now, now + LIFETIME_S)


def make_order(order: Order, key: Ed25519PrivateKey) -> bytes:
    """Sign an order with an operator's private key.

    :raises MalformedError: it is no order that a worker would read.
    """
    data = sign1(order.encode(), key, protected=_PROTECTED)
    _order(decode_sign1(data, max_bytes=MAX_ORDER_BYTES).payload)
    return data


def verify_order(data: bytes, *, pool: str, policy: TrustPolicy, newest_epoch: int, now: int) -> Order:
    """Verify an order that is to be obeyed now.

    1. it keeps to its format; 2. it is for this pool;
    3. an operator whom the policy names for this pool signed it;
    4. it is not from the future (300 s of skew), and has not expired;
    5. it ends no epoch that cannot exist yet: nobody may use up the future's.

    :param newest_epoch: see :meth:`.epochs.EpochRules.newest`. :param now: Unix seconds.
    :raises MalformedError: step 1. :raises VerificationError: ``ORDER_POOL``, ``ORDER_FUTURE``.
    :raises AppraisalError: ``ORDER_NOT_BY_OPERATOR``, ``ORDER_EXPIRED``, ``ORDER_EPOCH``.
    """
    message = decode_sign1(data, max_bytes=MAX_ORDER_BYTES)  # 1
    # By bytes: as values, -8.0 would equal -8.
    if message.protected_bytes != encode(_PROTECTED) or message.unprotected:
        raise MalformedError("ORDER_HEADER", "the order's header is not the one it must have")
    order = _order(message.payload)
    if order.pool != pool:  # 2
        raise VerificationError("ORDER_POOL", "the order is for another pool")
    for operator in policy.operators_of(pool):  # 3
        try:
            verify_sign1(message, bytes.fromhex(operator))
            break
        except VerificationError:
            continue
    else:
        raise _refusal("ORDER_NOT_BY_OPERATOR", "no operator that the policy names signed the order")
    if order.issued_at > now + CLOCK_SKEW_S:  # 4
        raise VerificationError("ORDER_FUTURE", "the order is from the future")
    if now >= order.expires:
        raise _refusal("ORDER_EXPIRED", "the order has expired")
    if order.through >= newest_epoch:  # 5
        raise _refusal("ORDER_EPOCH", "the order ends epochs that cannot exist yet")
    return order


def _refusal(code: str, message: str) -> AppraisalError:
    return AppraisalError(code, message, findings=((code, message),))


def _order(payload: bytes) -> Order:
    fields = Fields(decode(payload, max_bytes=MAX_ORDER_BYTES), "order", range(1, 10))
    fields.version(1, VERSION)
    kind = fields.text(4, 1, 16)
    if kind not in ("rotate", "revoke"):
        raise MalformedError("ORDER_KIND", "an order rotates or revokes")
    order = Order(
        pool=check_pool(fields.text(2, 1, 63)),
        serial=fields.uint(3, minimum=1),
        kind=cast("Kind", kind),
        epoch=fields.uint(5, minimum=1, maximum=MAX_EPOCH),
        through=fields.uint(6, minimum=1, maximum=MAX_EPOCH),
        revoked=tuple(_revoked(item) for item in fields.items(7, 0, MAX_REVOKED)),
        issued_at=fields.uint(8, maximum=_MAX_TIME),
        expires=fields.uint(9, maximum=_MAX_TIME),
    )
    _check_consistent(order)
    return order


def _revoked(item: object) -> tuple[int, bytes]:
    match item:
        case [epoch, bytes() as key_id] if type(epoch) is int and 1 <= epoch <= MAX_EPOCH:
            if len(key_id) in (0, 32):
                return epoch, key_id
    raise MalformedError("ORDER_REVOKED", "an entry of the revoked epochs is not of its form")


def _check_consistent(order: Order) -> None:
    if not MIN_LIFETIME_S <= order.expires - order.issued_at <= MAX_LIFETIME_S:
        raise MalformedError("ORDER_TIMES", "an order holds for at least 14 and at most 400 days")
    epochs = [epoch for epoch, _ in order.revoked]
    if epochs != sorted(set(epochs)):
        raise MalformedError("ORDER_REVOKED", "the revoked epochs are not in ascending order")
    if max((order.epoch, *epochs)) > order.through:
        raise MalformedError("ORDER_THROUGH", "an order names an epoch that it does not end")
    if (order.kind == "revoke") and order.epoch not in epochs:
        raise MalformedError("ORDER_REVOKED", "an order to revoke does not name its epoch as revoked")
    if (order.through + 1) % TURNS == 0:
        raise MalformedError("ORDER_THROUGH", "the period has no epoch left; wait for the next")
