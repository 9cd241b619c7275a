"""Is the broker there, and how long is a queue?"""

from __future__ import annotations

from redis.exceptions import RedisError

from ..wire.errors import DeliveryError
from .queues import jobs_queue
from .redis_client import redis_client
from .settings import BrokerSettings


def ping(settings: BrokerSettings) -> None:
    """Return when the broker answers.

    :raises DeliveryError: ``BROKER_UNREACHABLE``.
    """
    try:
        with redis_client(settings) as client:
            client.ping()
    except (RedisError, OSError):
        raise DeliveryError("BROKER_UNREACHABLE", "the broker cannot be reached") from None


def queue_length(settings: BrokerSettings, pool: str) -> int:
    """Return how many messages wait in a pool's queue (those in work are not counted).

    :raises DeliveryError: ``BROKER_UNREACHABLE``. :raises MalformedError: ``BAD_POOL``.
    """
    name = jobs_queue(pool)
    try:
        with redis_client(settings) as client:
            return int(client.llen(name))
    except (RedisError, OSError):
        raise DeliveryError("BROKER_UNREACHABLE", "the broker cannot be reached") from None
