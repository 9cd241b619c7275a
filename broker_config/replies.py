"""Reply queues: raw messages to a client's own queue, no Celery, no result backend."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty
from types import TracebackType
from typing import Any, Self

from kombu import Connection, Exchange, Producer, Queue
from kombu.exceptions import DecodeError, OperationalError
from kombu.simple import SimpleQueue
from redis.exceptions import RedisError

from ..wire.errors import DeliveryError, Error
from .app import tls_options, transport_options
from .queues import check_reply_to
from .serializer import CONTENT_TYPE, NAME, register_cbor
from .settings import BrokerSettings


def open_connection(settings: BrokerSettings) -> Connection:
    """Return a kombu connection (lazy) for a running broker."""
    register_cbor()
    return Connection(
        settings.url,
        ssl=tls_options(settings) or False,
        transport_options=transport_options(settings),
        connect_timeout=settings.connect_timeout_s,
    )


@dataclass(frozen=True)
class Delivery:
    """A message that was received and must be acknowledged."""

    body: bytes
    ack: Callable[[], None]


class ReplyQueue:
    """Receives from one reply queue; a context manager.

    What was received but not acknowledged comes again after the visibility timeout.
    """

    def __init__(self, settings: BrokerSettings, name: str) -> None:
        self._settings = settings
        self._name = check_reply_to(name)

    def __enter__(self) -> Self:
        self._connection = open_connection(self._settings)
        try:
            self._connection.ensure_connection(max_retries=1, interval_start=0.1)
            queue = Queue(self._name, Exchange(""), routing_key=self._name, no_declare=True)
            self._queue = SimpleQueue(self._connection.channel(), queue, accept=[CONTENT_TYPE])
        except (OperationalError, RedisError, OSError):
            self._connection.release()
            raise DeliveryError("BROKER_UNREACHABLE", "the broker cannot be reached") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._queue.close()
            self._connection.release()
        except (OperationalError, RedisError, OSError):
            return  # the broker is gone; what was not acknowledged comes again

    def receive(self, timeout_s: float) -> Delivery | None:
        """Return the next message, or None after ``timeout_s`` seconds without one.

        :raises DeliveryError: ``BROKER_UNREACHABLE``.
        """
        try:
            message = self._queue.get(block=True, timeout=timeout_s)
            body = message.payload
        except Empty:
            return None
        except (DecodeError, Error):
            return Delivery(b"", lambda: None)  # not ours: the caller discards it
        except (OperationalError, RedisError, OSError):
            raise DeliveryError("BROKER_UNREACHABLE", "the broker cannot be reached") from None
        return Delivery(body if isinstance(body, bytes) else b"", lambda: self._ack(message))

    def _ack(self, message: Any) -> None:
        try:
            message.ack()
        except (OperationalError, RedisError, OSError):
            raise DeliveryError("BROKER_UNREACHABLE", "the broker cannot be reached") from None


class ReplyPublisher:
    """Publishes to reply queues from any thread, one connection per thread."""

    def __init__(self, settings: BrokerSettings) -> None:
        self._settings = settings
        self._local = threading.local()

    def publish(self, reply_to: str, body: bytes) -> None:
        """Publish one message; it is with the broker when this returns.

        :raises DeliveryError: ``BROKER_UNREACHABLE``. :raises MalformedError: ``BAD_REPLY_TO``.
        """
        name = check_reply_to(reply_to)
        try:
            producer = self._producer()
            producer.publish(body, exchange="", routing_key=name, serializer=NAME, retry=False)
            producer.channel.client.expire(name, self._settings.reply_ttl_s)
        except (OperationalError, RedisError, OSError):
            self._forget()
            raise DeliveryError("BROKER_UNREACHABLE", "the broker cannot be reached") from None

    def _producer(self) -> Producer:
        producer = getattr(self._local, "producer", None)
        if producer is None:
            connection = open_connection(self._settings)
            producer = Producer(connection.channel(), auto_declare=False)
            self._local.connection, self._local.producer = connection, producer
        return producer

    def _forget(self) -> None:
        connection = getattr(self._local, "connection", None)
        self._local.__dict__.clear()
        if connection is not None:
            connection.release()
