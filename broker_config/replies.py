"""Reply queues: raw messages to a client's own queue, no Celery, no result backend."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from kombu import Connection, Consumer, Exchange, Producer, Queue
from kombu.exceptions import OperationalError

from .carriers import Carrier, carrier_of, unusable
from .queues import check_reply_to
from .serializer import CONTENT_TYPE, NAME, register_cbor
from .settings import BrokerSettings

#: Messages that a client holds unacknowledged; the next ones stay with the broker.
PREFETCH: Final = 8


def open_connection(settings: BrokerSettings, *, lease: str) -> Connection:
    """Return a kombu connection (lazy) for a running broker; see :meth:`.carriers.Carrier.connection`."""
    register_cbor()
    return carrier_of(settings).connection(settings, lease=lease)


def _lost(carrier: Carrier) -> tuple[type[BaseException], ...]:
    return (OperationalError, *carrier.lost)


def make_reply_queue(settings: BrokerSettings, name: str) -> None:
    """Make a reply queue where the broker wants it made, before anything can be answered to it.

    :raises DeliveryError: ``BROKER_UNREACHABLE``. :raises MalformedError: ``BAD_REPLY_TO``.
    """
    carrier = carrier_of(settings)
    try:
        carrier.open_replies(settings, check_reply_to(name))
    except carrier.lost as error:
        raise unusable(carrier, error) from None


@dataclass(frozen=True)
class Delivery:
    """A message that was received and must be acknowledged.

    :param body: empty where the message was not one of ours. :param ack: takes it off the broker.
    """

    body: bytes
    ack: Callable[[], None]


class ReplyQueue:
    """Receives from one reply queue; a context manager. For one thread.

    What was received but not acknowledged is given back on leaving, or after the visibility
    timeout where the client died.

    :raises MalformedError: ``BAD_REPLY_TO``.
    """

    def __init__(self, settings: BrokerSettings, name: str) -> None:
        self._settings = settings
        self._carrier = carrier_of(settings)
        self._lost = _lost(self._carrier)
        self._name = check_reply_to(name)
        self._done = False
        self._arrived: deque[Any] = deque()
        self._connection: Connection | None = None
        self._channel: Any = None

    def __enter__(self) -> Self:
        try:
            self._carrier.open_replies(self._settings, self._name)
            self._open()
        except self._lost as error:
            self._drop(lost=True)
            raise unusable(self._carrier, error) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._drop()
        try:
            self._carrier.leave_replies(self._settings, self._name, done=self._done)
        except self._lost:
            return  # the broker is gone; what was not acknowledged comes again

    def done(self) -> None:
        """Say that no further reply is expected: on leaving, what the broker keeps for the queue may go."""
        self._done = True

    def receive(self, timeout_s: float) -> Delivery | None:
        """Return the next message, or None after ``timeout_s`` seconds without one.

        :raises DeliveryError: ``BROKER_UNREACHABLE``; call again, the connection is then made anew.
        """
        deadline = time.monotonic() + timeout_s
        while not self._arrived:
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            try:
                self._open().drain_events(timeout=min(left, self._carrier.slice_s))
            except TimeoutError:
                continue
            except self._lost as error:
                self._drop(lost=True)
                raise unusable(self._carrier, error) from None
        message = self._arrived.popleft()
        try:
            body = message.decode()
        except Exception:  # foreign content type, compression, or not our encoding
            body = None
        return Delivery(body if isinstance(body, bytes) else b"", lambda: self._ack(message))

    def _open(self) -> Connection:
        """Return the connection that consumes, made anew after a loss."""
        if self._connection is None:
            self._connection = open_connection(self._settings, lease=self._name)
            self._connection.ensure_connection(max_retries=1, interval_start=0.1)
            self._channel = self._connection.default_channel
            queue = Queue(self._name, Exchange(""), routing_key=self._name, no_declare=True)
            Consumer(
                self._channel,
                [queue],
                accept=[CONTENT_TYPE],
                on_message=self._arrived.append,
                prefetch_count=PREFETCH,
            ).consume()
        return self._connection

    def _drop(self, *, lost: bool = False) -> None:
        """Close; kombu gives unacknowledged messages back, unless there is no broker to give them to."""
        self._arrived.clear()
        if self._connection is not None:
            if lost and self._channel is not None:
                self._channel.do_restore = False
            _release_quietly(self._connection, self._lost)
            self._connection = None

    def _ack(self, message: Any) -> None:
        try:
            message.ack()
        except self._lost as error:
            raise unusable(self._carrier, error) from None


class ReplyPublisher:
    """Publishes to reply queues from any thread, one connection per thread."""

    def __init__(self, settings: BrokerSettings) -> None:
        self._settings = settings
        self._carrier = carrier_of(settings)
        self._lost = _lost(self._carrier)
        self._local = threading.local()
        self._lock = threading.Lock()
        self._connections: set[Connection] = set()

    def publish(self, reply_to: str, body: bytes) -> None:
        """Publish one message; it is with the broker when this returns.

        :raises DeliveryError: ``BROKER_UNREACHABLE``. :raises MalformedError: ``BAD_REPLY_TO``.
        """
        name = check_reply_to(reply_to)
        try:
            producer = self._producer()
            producer.publish(body, exchange="", routing_key=name, serializer=NAME, retry=False)
        except self._lost as error:
            self._forget()
            raise unusable(self._carrier, error) from None

    def close(self) -> None:
        """Close all connections; no thread may be publishing."""
        with self._lock:
            connections, self._connections = self._connections, set()
        self._local = threading.local()
        for connection in connections:
            _release_quietly(connection, self._lost)

    def _producer(self) -> Producer:
        producer = getattr(self._local, "producer", None)
        if producer is None:
            connection = open_connection(self._settings, lease="none")
            self._local.connection = connection
            with self._lock:
                self._connections.add(connection)
            producer = self._local.producer = Producer(connection.channel(), auto_declare=False)
        return producer

    def _forget(self) -> None:
        connection = getattr(self._local, "connection", None)
        self._local.__dict__.clear()
        if connection is not None:
            with self._lock:
                self._connections.discard(connection)
            _release_quietly(connection, self._lost)


def _release_quietly(connection: Connection, lost: tuple[type[BaseException], ...]) -> None:
    try:
        connection.release()
    except lost:
        return  # gone already
