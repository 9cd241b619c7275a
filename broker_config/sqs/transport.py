"""kombu's side of SQS: channels whose messages are leased by receives of ours, never by kombu's own ways.

kombu's transport for SQS encodes twice, never extends a lease, makes queues at start and lets a
message that it cannot read end a worker. Of kombu only the virtual channel is used here: a publication
is one call, a consumer one :class:`.puller.Puller`, and every acknowledgement goes through
:class:`.leases.Leases`.
"""

from __future__ import annotations

import logging
import math
import os
import threading
from contextlib import suppress
from time import monotonic
from typing import Any, Final

from kombu.transport import TRANSPORT_ALIASES, virtual

from ...wire.errors import Error
from ..pubsub.replies import Gone
from ..settings import BrokerSettings
from .calls import Denied, Lost, Missing, calls_of
from .form import packed
from .leases import Leases
from .names import queue_name
from .puller import Puller

LOG: Final = logging.getLogger("ephemeralml.broker")
SCHEME: Final = "ephemeralml-sqs"
#: A client ends when it has its replies, and then waits for a receive under way.
REPLY_WAIT_SECONDS: Final = 1
#: Celery looks between two waits whether it has been told to stop; its own would last two seconds.
SLICE_SECONDS: Final = 0.5
#: Reply queues that are missing; see :mod:`..pubsub.replies` for what a worker does about them.
GONE: Final = Gone()


class LeaseQoS(virtual.QoS):
    """Counts what is held; what becomes of it is told to :class:`.leases.Leases`."""

    def __init__(self, channel: Any, prefetch_count: int = 0) -> None:
        super().__init__(channel, prefetch_count)  # type: ignore[no-untyped-call]
        # All that leaves goes through this, what an unfinished task leaves to its lease as well.
        self._quick_ack = self._left

    def ack(self, delivery_tag: str) -> None:
        """Take a message off the broker for good."""
        self.channel.leave(delivery_tag, back=False)
        super().ack(delivery_tag)  # type: ignore[no-untyped-call]

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Give a message back, or forget it."""
        self.channel.leave(delivery_tag, back=requeue)
        super().ack(delivery_tag)  # type: ignore[no-untyped-call]

    def _left(self, delivery_tag: str) -> None:
        self._dirty.add(delivery_tag)
        self.channel.wake()

    def restore_unacked(self) -> list[Any]:
        """Give back what is held, but what an unfinished task left to its lease."""
        self._flush()  # type: ignore[no-untyped-call]
        for tag in list(self._delivered):
            self.channel.leave(tag, back=True)
        self._delivered.clear()
        return []

    def holds(self, delivery_tag: str) -> bool:
        """Return whether a message is in work here."""
        return delivery_tag in self._delivered and delivery_tag not in self._dirty


class Channel(virtual.Channel):
    """Publishes by calls and consumes by pullers, one per queue."""

    QoS = LeaseQoS
    body_encoding: Any = None

    def __init__(self, connection: Any, **options: Any) -> None:
        super().__init__(connection, **options)  # type: ignore[no-untyped-call]
        self._pullers: dict[str, Puller] = {}
        self._ending: list[Puller] = []
        self._leases: dict[str, Leases] = {}
        self._settings: BrokerSettings = connection.settings
        self._changed: threading.Condition = connection.changed

    def basic_consume(
        self, queue: str, no_ack: bool, callback: Any, consumer_tag: str, **options: Any
    ) -> None:
        """Begin to receive from a queue."""
        super().basic_consume(queue, no_ack, callback, consumer_tag, **options)  # type: ignore[no-untyped-call]
        if queue in self._pullers:
            return
        settings, calls = self._settings, calls_of(self._settings)
        name = queue_name(settings, queue)
        wait = settings.sqs_wait_s if queue.startswith("jobs.") else REPLY_WAIT_SECONDS
        if queue not in self._leases:
            lease_s, longest = settings.visibility_timeout_s, settings.max_lease_s
            self._leases[queue] = Leases(calls, name, lease_s, longest, self._kept)
        self._pullers[queue] = Puller(
            calls, name, queue, wait, self._room, self._leases[queue], self._changed
        )

    def basic_qos(self, prefetch_size: int = 0, prefetch_count: int = 0, apply_global: bool = False) -> None:
        """Hold so many messages at most."""
        super().basic_qos(prefetch_size, prefetch_count, apply_global)  # type: ignore[no-untyped-call]
        self.wake()

    def basic_cancel(self, consumer_tag: str) -> None:
        """Stop receiving; what is in work stays leased until it is acknowledged or given back."""
        puller = self._pullers.pop(self._tag_to_queue.get(consumer_tag, ""), None)
        if puller is not None:
            puller.stop()
            self._ending.append(puller)
        super().basic_cancel(consumer_tag)  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Give back what is held, and tell the broker so before this returns."""
        if self.closed:
            return
        wanted = self.do_restore
        super().close()  # type: ignore[no-untyped-call]
        until = monotonic() + self._settings.sqs_wait_s + 1
        for puller in self._ending if wanted else ():
            puller.ended(max(0.0, until - monotonic()))
        for leases in self._leases.values():
            leases.close(self._settings.operation_timeout_s if wanted else 0)

    def leave(self, tag: str, *, back: bool) -> None:
        """Give a held message back, or take it off for good."""
        for leases in self._leases.values():
            (leases.give_back if back else leases.acknowledge)(tag)

    def wake(self) -> None:
        """Tell the pullers that there is room."""
        with self._changed:
            self._changed.notify_all()

    def deliver_one(self) -> bool:
        """Hand one message that has arrived to its consumer, and return whether there was one."""
        for queue, puller in list(self._pullers.items()):
            message = puller.take()
            if message is not None:
                self.connection._deliver(message, queue)
                return True
        return False

    def broken(self, patience_s: float) -> Exception | None:
        """Return why no message comes; see :meth:`.puller.Puller.broken`."""
        return next((why for one in list(self._pullers.values()) if (why := one.broken(patience_s))), None)

    @property
    def waiting(self) -> int:
        """How many messages have arrived and were not delivered."""
        return sum(puller.waiting for puller in list(self._pullers.values()))

    def _kept(self, tag: str) -> bool:
        arrived = any(puller.has(tag) for puller in list(self._pullers.values()))
        return arrived or self.qos.holds(tag)

    def _room(self) -> int:
        most = self.qos.can_consume_max_estimate()  # None before Celery has said how many
        return (1 if most is None else most) - self.waiting

    def _put(self, queue: str, message: Any, **_: Any) -> None:
        publish(self._settings, queue, packed(message, queue))

    def _get(self, queue: str, timeout: float | None = None) -> Any:
        raise NotImplementedError("messages are consumed, never fetched without a lease")

    def _purge(self, queue: str) -> int:
        raise NotImplementedError("queues are never purged")


class Transport(virtual.Transport):
    """The transport of these channels: it waits until a puller has something, and never polls.

    A worker's connection outlives every outage: leaving it would take the acknowledgements of what
    is in work along. Other connections raise :class:`.calls.Lost` after a while of failures.
    """

    Channel = Channel
    driver_type = "sqs"
    driver_name = "sqs"
    connection_errors = (Lost,)
    channel_errors: Any = ()

    def __init__(self, client: Any, **options: Any) -> None:
        super().__init__(client, **options)  # type: ignore[no-untyped-call]
        self.settings: BrokerSettings = client.transport_options["settings"]
        self._jobs: str | None = client.transport_options["jobs"]
        self.changed = threading.Condition()

    def establish_connection(self) -> Any:
        """Return once the service answers and a worker's queue is there.

        :raises SystemExit: it is not, or not for this worker: nothing but an operator can help.
        """
        if self._jobs is None:
            ping(self.settings)
            return super().establish_connection()  # type: ignore[no-untyped-call]
        try:
            calls_of(self.settings).there(queue_name(self.settings, self._jobs))
        except Error as error:
            raise _leave(error) from None
        return super().establish_connection()  # type: ignore[no-untyped-call]

    def drain_events(self, connection: Any, timeout: float | None = None, **_: Any) -> None:
        """Deliver one message.

        :raises TimeoutError: none came in ``timeout`` seconds, or in :data:`SLICE_SECONDS`.
        :raises Lost, DeliveryError: none can come, but to a worker.
        :raises SystemExit: none will ever come to this worker.
        """
        end = None if timeout is None else monotonic() + min(timeout, SLICE_SECONDS)
        while not any(channel.deliver_one() for channel in list(self.channels)):
            self._check()
            left = None if end is None else end - monotonic()
            if left is not None and left <= 0:
                raise TimeoutError
            with self.changed:
                self.changed.wait_for(self._something, left)

    def _something(self) -> bool:
        return any(channel.waiting or channel.broken(math.inf) for channel in list(self.channels))

    def _check(self) -> None:
        patience = math.inf if self._jobs else self.settings.connect_timeout_s
        for channel in list(self.channels):
            error = channel.broken(patience)
            if error is not None:
                raise _leave(error) if self._jobs else error


def ping(settings: BrokerSettings) -> None:
    """Return when SQS answers and knows this identity: it is asked for a queue that need not be there.

    :raises Lost, DeliveryError, ConfigurationError: as :class:`.calls.Calls`.
    """
    with suppress(Missing, Denied):
        calls_of(settings).there(queue_name(settings, "ping"))


def publish(settings: BrokerSettings, queue: str, text: str) -> None:
    """Publish one message.

    :raises Lost, DeliveryError: as :class:`.calls.Calls`; for a reply queue that is gone see :data:`GONE`.
    """
    try:
        calls_of(settings).send(queue_name(settings, queue), text)
    except Missing:
        if queue.startswith("reply."):
            raise GONE.missed(queue) from None
        raise
    GONE.found(queue)


def _leave(error: Exception) -> SystemExit:
    """Say why a worker ends, and return what ends it."""
    LOG.error("%s", error if isinstance(error, Error) else type(error).__name__)
    return SystemExit(os.EX_UNAVAILABLE)


# kombu finds transports by the scheme of a URL.
TRANSPORT_ALIASES[SCHEME] = f"{__name__}:Transport"
