"""Redis as a carrier: queues are lists, made by their first message."""

from __future__ import annotations

from typing import Any, Final

from kombu import Connection
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from ..carriers import Depth
from ..queues import jobs_queue
from ..settings import BrokerSettings
from .client import redis_client, tls_options
from .lease import LeaseKeys, Line, expire
from .rights import rights
from .transport import HardenedAMQP, HardenedConnection


class RedisCarrier:
    """See :class:`..carriers.Carrier`."""

    lost: tuple[type[BaseException], ...] = (RedisError, OSError)
    denied: tuple[type[BaseException], ...] = (NoPermissionError, AuthenticationError)
    # kombu looks for leases that ran out only when a wait this short (below its BRPOP's second) ends.
    slice_s = 0.5
    amqp = HardenedAMQP

    def celery_options(self, settings: BrokerSettings, *, lease: str) -> dict[str, Any]:
        """See :meth:`..carriers.Carrier.celery_options`."""
        return {
            "broker_url": settings.url,
            "broker_transport_options": _transport_options(settings, lease=lease),
            "broker_use_ssl": tls_options(settings),
        }

    def connection(self, settings: BrokerSettings, *, lease: str) -> Connection:
        """See :meth:`..carriers.Carrier.connection`."""
        return HardenedConnection(  # type: ignore[no-untyped-call]
            settings.url,
            ssl=tls_options(settings) or False,
            transport_options=_transport_options(settings, lease=lease),
            connect_timeout=settings.connect_timeout_s,
        )

    def ping(self, settings: BrokerSettings) -> None:
        """See :meth:`..carriers.Carrier.ping`."""
        with redis_client(settings) as client:
            client.ping()

    def depth(self, settings: BrokerSettings, pool: str) -> Depth:
        """See :meth:`..carriers.Carrier.depth`."""
        keys = LeaseKeys.of(jobs_queue(pool))
        with redis_client(settings) as client:
            return Depth(waiting=int(client.llen(keys.queue)), in_flight=int(client.zcard(keys.leased)))

    def open_replies(self, settings: BrokerSettings, name: str) -> None:
        """See :meth:`..carriers.Carrier.open_replies`: the first message makes it."""

    def leave_replies(self, settings: BrokerSettings, name: str, *, done: bool) -> None:
        """See :meth:`..carriers.Carrier.leave_replies`."""
        # kombu has given unacknowledged messages back; they must not stay for ever.
        with redis_client(settings) as client:
            line = Line(client.connection_pool)
            try:
                expire(line, name, settings.reply_ttl_s)
            finally:
                line.close()

    def create(self, settings: BrokerSettings, pools: list[str]) -> list[str]:
        """See :meth:`..carriers.Carrier.create`: there is nothing to make."""
        return [f"{jobs_queue(pool)}: Redis makes it with the first message" for pool in pools]

    def rights(self, settings: BrokerSettings, role: str) -> str:
        """See :meth:`..carriers.Carrier.rights`."""
        return rights(role)


CARRIER: Final = RedisCarrier()


def _transport_options(settings: BrokerSettings, *, lease: str) -> dict[str, Any]:
    """Return kombu's options.

    Each pool and each reply queue has a lease of its own, so that nobody gives back a message
    before the lease of its own consumers runs out.
    """
    return {
        "visibility_timeout": settings.visibility_timeout_s,
        "max_lease": settings.max_lease_s,
        "reply_ttl": settings.reply_ttl_s,
        # Look for messages whose lease ran out every few seconds, not every 100.
        "unacked_restore_interval": max(1, min(10, int(settings.visibility_timeout_s / 4))),
        "unacked_restore_throttle": 1,
        "unacked_key": f"unacked.{lease}",
        "socket_timeout": settings.operation_timeout_s,
        "socket_connect_timeout": settings.connect_timeout_s,
        "socket_keepalive": not settings.url.startswith("redis+socket"),
        "health_check_interval": 25,
    }
