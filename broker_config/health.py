"""Is the broker there, and how full is a queue?"""

from __future__ import annotations

from .carriers import Depth, carrier_of, unusable
from .queues import jobs_queue
from .settings import BrokerSettings


def ping(settings: BrokerSettings) -> None:
    """Return when the broker answers.

    :raises DeliveryError: ``BROKER_UNREACHABLE``, ``BROKER_DENIED``.
    """
    carrier = carrier_of(settings)
    try:
        carrier.ping(settings)
    except carrier.lost as error:
        raise unusable(carrier, error) from None


def depth(settings: BrokerSettings, pool: str) -> Depth:
    """Return how full a pool's queue is.

    :raises DeliveryError: ``BROKER_UNREACHABLE``, ``BROKER_DENIED``. :raises MalformedError: ``BAD_POOL``.
    """
    jobs_queue(pool)
    carrier = carrier_of(settings)
    try:
        return carrier.depth(settings, pool)
    except carrier.lost as error:
        raise unusable(carrier, error) from None
