"""kombu's side of Pub/Sub: channels whose messages are leased by unary pulls, never by kombu's own ways.

kombu's transport for Pub/Sub leaks leases, makes topics at start and forgets messages after a
day. Of kombu only the virtual channel is used here: a publication is one call, a consumer one
:class:`.puller.Puller`, and every acknowledgement goes through :class:`.leases.Leases`.
"""

from __future__ import annotations

import logging
import math
import os
import threading
from time import monotonic
from typing import Any, Final

from celery.worker import state
from kombu.transport import TRANSPORT_ALIASES, virtual

from ...wire.errors import DeliveryError
from ..settings import BrokerSettings
from .calls import CONSUME, MAX_PULLED, PUBLISH, Missing, calls_of
from .form import packed
from .leases import Leases
from .names import Names
from .puller import Puller
from .replies import GONE

LOG: Final = logging.getLogger("ephemeralml.broker")
SCHEME: Final = "pubsub"
#: How often a wait looks whether the worker was told to stop.
LOOK_SECONDS: Final = 0.25


class LeaseQoS(virtual.QoS):
    """Counts what is held; what becomes of it is told to :class:`.leases.Leases`."""

    def ack(self, delivery_tag: str) -> None:
        """Take a message off the broker for good."""
        self.channel.leave(delivery_tag, back=False)
        super().ack(delivery_tag)  # type: ignore[no-untyped-call]
        self.channel.wake()

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Give a message back, or forget it."""
        self.channel.leave(delivery_tag, back=requeue)
        super().ack(delivery_tag)  # type: ignore[no-untyped-call]
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
        self._leases: dict[str, Leases] = {}
        self._settings: BrokerSettings = connection.settings
        self._changed: threading.Condition = connection.changed

    def basic_consume(
        self, queue: str, no_ack: bool, callback: Any, consumer_tag: str, **options: Any
    ) -> None:
        """Begin to pull a queue."""
        super().basic_consume(queue, no_ack, callback, consumer_tag, **options)  # type: ignore[no-untyped-call]
        if queue in self._pullers:
            return
        settings, calls = self._settings, calls_of(self._settings)
        name = Names.of(settings).subscription(queue)
        leases = Leases(calls, name, settings.visibility_timeout_s, settings.max_lease_s, self._kept)
        self._leases[queue] = leases
        self._pullers[queue] = Puller(calls, name, queue, self._room, leases, self._changed)

    def basic_cancel(self, consumer_tag: str) -> None:
        """Stop pulling; what is in work stays leased until it is acknowledged or given back."""
        puller = self._pullers.pop(self._tag_to_queue.get(consumer_tag, ""), None)
        if puller is not None:
            puller.stop()
        super().basic_cancel(consumer_tag)  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Give back what is held, and tell the broker so before this returns."""
        if not self.closed:
            timeout = self._settings.operation_timeout_s if self.do_restore else 0
            super().close()  # type: ignore[no-untyped-call]
            for leases in self._leases.values():
                leases.close(timeout)

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
        pulled = any(puller.has(tag) for puller in list(self._pullers.values()))
        return pulled or self.qos.holds(tag)

    def _room(self) -> int:
        if stopping():
            return 0
        most = self.qos.can_consume_max_estimate()
        return (MAX_PULLED if most is None else most) - self.waiting

    def _put(self, queue: str, message: Any, **_: Any) -> None:
        publish(self._settings, queue, *packed(message, queue))

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
    driver_type = SCHEME
    driver_name = SCHEME
    #: Lost is one; so is what a watchdog restarts a consumer by.
    connection_errors = (ConnectionError,)
    channel_errors: Any = ()

    def __init__(self, client: Any, **options: Any) -> None:
        super().__init__(client, **options)  # type: ignore[no-untyped-call]
        self.settings: BrokerSettings = client.transport_options["settings"]
        self._jobs: str | None = client.transport_options["jobs"]
        self.changed = threading.Condition()

    def establish_connection(self) -> Any:
        """Return once the service answers and a worker's subscription is there.

        :raises SystemExit: it is not: nothing but an operator can help.
        """
        calls, names = calls_of(self.settings), Names.of(self.settings)
        if self._jobs is None:
            calls.allowed(names.topic("ping"), PUBLISH)
        elif not calls.allowed(names.subscription(self._jobs), CONSUME):
            raise _leave(Missing())
        return super().establish_connection()  # type: ignore[no-untyped-call]

    def drain_events(self, connection: Any, timeout: float | None = None, **_: Any) -> None:
        """Deliver one message.

        :raises TimeoutError: none came. :raises Lost, DeliveryError: none can come, but to a worker.
        :raises SystemExit: none will ever come to this worker.
        """
        end = math.inf if timeout is None else monotonic() + timeout
        while stopping() or not any(channel.deliver_one() for channel in list(self.channels)):
            self._check()
            left = end - monotonic()
            if left <= 0 or stopping():
                raise TimeoutError
            with self.changed:
                self.changed.wait_for(self._something, min(left, LOOK_SECONDS))

    def _something(self) -> bool:
        return any(channel.waiting or channel.broken(math.inf) for channel in list(self.channels))

    def _check(self) -> None:
        patience = math.inf if self._jobs else self.settings.connect_timeout_s
        for channel in list(self.channels):
            error = channel.broken(patience)
            if error is not None:
                raise _leave(error) if self._jobs else error


def publish(settings: BrokerSettings, queue: str, data: bytes, attributes: dict[str, str]) -> None:
    """Publish one message.

    :raises Lost, DeliveryError: as :class:`.calls.Calls`; for a reply queue that is gone see :mod:`.replies`.
    """
    topic = Names.of(settings).topic(queue)
    try:
        calls_of(settings).publish(topic, data, attributes)
    except Missing:
        if queue.startswith("reply."):
            raise GONE.missed(topic) from None
        raise
    GONE.found(topic)


def stopping() -> bool:
    """Return whether this process is a worker that was told to stop: it takes no more."""
    # Celery's flags hold an exit status, and 0 is one.
    return any(flag is not None and flag is not False for flag in (state.should_stop, state.should_terminate))


def _leave(error: Exception) -> SystemExit:
    """Say why a worker ends, and return what ends it."""
    LOG.error("%s", error if isinstance(error, DeliveryError) else type(error).__name__)
    return SystemExit(os.EX_UNAVAILABLE)


# kombu finds transports by the scheme of a URL.
TRANSPORT_ALIASES[SCHEME] = f"{__name__}:Transport"
