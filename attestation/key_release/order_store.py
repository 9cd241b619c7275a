"""Reads and places the orders of a pool in the blob store, which is untrusted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Protocol

from ...wire.errors import DeliveryError, Error
from ..policy import TrustPolicy
from .orders import Order, verify_order
from .stored import order_name, orders_prefix

MAX_ORDERS: Final = 64
"""How many are read, by the highest serials; each repeats what is still revoked."""


class OrderBlobs(Protocol):
    """What a blob store does for orders."""

    def get(self, key: str) -> bytes:
        """Return a blob."""

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys that begin with ``prefix``."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Store a blob unless one is there; return whether this call stored it."""


def read_orders(
    blobs: OrderBlobs, pool: str, policy: TrustPolicy, *, newest_epoch: int, now: int
) -> tuple[list[Order], list[tuple[str, str]]]:
    """Return a pool's orders that are to be obeyed, and the names of others with the code that refuses each.

    Anyone can put junk there: it is left out, and has no say. Where the policy names no operator, nothing
    is read.

    :param newest_epoch: see :func:`.orders.verify_order`. :param now: Unix seconds.
    :raises DeliveryError: the blob store cannot be reached.
    """
    good: list[Order] = []
    refused: list[tuple[str, str]] = []
    if not policy.operators_of(pool):
        return good, refused
    for name in sorted(blobs.list(orders_prefix(pool)), reverse=True)[:MAX_ORDERS]:
        try:
            data = blobs.get(name)
            good.append(verify_order(data, pool=pool, policy=policy, newest_epoch=newest_epoch, now=now))
        except Error as error:
            if isinstance(error, DeliveryError) and error.retriable:
                raise
            refused.append((name.rsplit("/", 1)[-1], error.code))
    return good, refused


def place_order(blobs: OrderBlobs, pool: str, serial: int, order: bytes) -> None:
    """Put a signed order where workers look.

    :raises DeliveryError: the blob store cannot be reached.
    """
    blobs.put_if_absent(order_name(pool, serial, order), order)
