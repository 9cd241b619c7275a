"""Is the broker there, and how full is a queue?"""

from __future__ import annotations

from ..wire.errors import DeliveryError
from .carriers import Depth, carrier_of
from .queues import jobs_queue
from .settings import BrokerSettings


def ping(settings: BrokerSettings) -> None:
    """Return when the broker answers.

    :raises DeliveryError: ``BROKER_UNREACHABLE``.
    """
    carrier = carrier_of(settings)
    try:
        carrier.ping(settings)
    except carrier.lost:
        raise DeliveryError("BROKER_UNREACHABLE", "the broker cannot be reached") from None


def depth(settings: BrokerSettings, pool: str) -> Depth:
    """Return how full a pool's queue is.

    :raises DeliveryError: ``BROKER_UNREACHABLE``. :raises MalformedError: ``BAD_POOL``.
    """
    jobs_queue(pool)
    carrier = carrier_of(settings)
    try:
        return carrier.depth(settings, pool)
    except carrier.lost:
        raise DeliveryError("BROKER_UNREACHABLE", "the broker cannot be reached") from None
