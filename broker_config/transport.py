"""kombu's Redis transport, hardened: what a host writes into a queue cannot end a worker.

As it is, one list entry that is not JSON ends a Celery worker with "Unrecoverable error".
"""

from __future__ import annotations

import logging
from queue import Empty
from typing import Any, Final

from celery.app.amqp import AMQP
from kombu import Connection
from kombu.transport import redis

from .envelope import well_formed

LOG: Final = logging.getLogger("ephemeralml.broker")


class Channel(redis.Channel):
    """Drops entries that are not JSON."""

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[no-untyped-call]
        except (ValueError, RecursionError) as error:
            if isinstance(error, OSError):  # ssl's certificate errors are both
                raise
            LOG.warning("a message was dropped: not of this system's form")
            raise Empty from None


class Transport(redis.Transport):
    """Drops entries that are not of this package's form, before anything else reads them."""

    Channel = Channel

    def _deliver(self, message: object, queue: str) -> None:
        if well_formed(message, queue):
            super()._deliver(message, queue)  # type: ignore[no-untyped-call]
        else:
            LOG.warning("a message was dropped: not of this system's form")


class HardenedConnection(Connection):
    """A kombu connection to Redis over that transport."""

    def get_transport_cls(self) -> type[Transport]:
        """Return the hardened transport."""
        return Transport


class HardenedAMQP(AMQP):  # type: ignore[misc]
    """Makes a Celery app use such connections."""

    Connection = HardenedConnection
