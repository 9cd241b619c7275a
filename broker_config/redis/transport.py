"""kombu's Redis transport, hardened: nothing is lost between taking and leasing, and what a host
writes into a queue cannot end a worker.

As it is, one list entry that is not JSON ends a Celery worker with "Unrecoverable error"; here the form
of messages is our own (:mod:`.form`).
"""

from __future__ import annotations

import logging
from queue import Empty
from time import monotonic
from typing import Any, Final

from celery.app.amqp import AMQP
from kombu import Connection
from kombu.transport import redis
from kombu.transport.virtual.base import QoS as VirtualQoS

from ..signs import SIGNS
from .form import packed, unpacked
from .lease import TAKE, LeaseKeys, Leases, Line, put

LOG: Final = logging.getLogger("ephemeralml.broker")


class LeaseQoS(redis.QoS):
    """Acknowledges, gives back and extends by scripts; see :mod:`.lease`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)  # type: ignore[no-untyped-call]
        self._taken_at: dict[str, float] = {}

    def append(self, message: Any, delivery_tag: str) -> None:
        """Note a message that was leased when it was taken."""
        self._taken_at[delivery_tag] = monotonic()
        VirtualQoS.append(self, message, delivery_tag)

    def extend(self) -> None:
        """Begin the leases of what is held anew, but of nothing that was taken too long ago."""
        held = self._delivered.keys() - self._dirty  # kombu forgets what is done with at its leisure
        self._taken_at = {tag: at for tag, at in self._taken_at.items() if tag in held}
        oldest = monotonic() - self.channel.max_lease
        SIGNS.extended(self._leases().extend([tag for tag, at in self._taken_at.items() if at >= oldest]))

    def ack(self, delivery_tag: str) -> None:
        """Take a message off the broker for good; where that fails, its lease runs out and it comes again."""
        # First: a slot that stays taken, and a lease that is extended for it, would outlive the fault.
        VirtualQoS.ack(self, delivery_tag)
        self._leases().acknowledge(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Give a message back, or forget it."""
        VirtualQoS.ack(self, delivery_tag)
        leases = self._leases()
        (leases.give_back if requeue else leases.acknowledge)(delivery_tag)

    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:
        """Give one message back."""
        self._leases().give_back(tag)

    def restore_visible(self, start: int = 0, num: int = 10, interval: int = 10) -> None:
        """Give back what other consumers hold beyond their lease."""
        self._leases().give_back_due(self.visibility_timeout)

    def _leases(self) -> Leases:
        return Leases(self.channel.line, self.channel.lease_queue)


class Channel(redis.Channel):
    """Takes and leases in one step. One channel consumes one queue, under the lease of its name."""

    QoS = LeaseQoS
    body_encoding: Any = None
    from_transport_options: Any = (*redis.Channel.from_transport_options, "max_lease", "reply_ttl")
    #: Seconds after which a message that is still in work is left to others.
    max_lease: float = 3600
    #: Whether the queue was empty when it was last looked at: then wait for its bell.
    _idle = False

    #: Seconds after which replies that nobody fetched are forgotten.
    reply_ttl: int = 86_400
    _line: Line | None = None

    @property
    def line(self) -> Line:
        """The connection on which this channel's scripts run, beside the one that waits for messages."""
        if self._line is None or self._line.pool is not self.pool:
            self._line = Line(self.pool)
        return self._line

    def close(self) -> None:
        """Close, once what is held was given back."""
        super().close()  # type: ignore[no-untyped-call]
        if self._line is not None:
            self._line.close()

    @property
    def lease_queue(self) -> str:
        """The queue that this channel's leases belong to."""
        return str(self.unacked_key).removeprefix("unacked.")

    def _size(self, queue: str) -> int:
        """Return how many messages wait. There is one list per queue: priorities are not used."""
        with self.conn_or_acquire() as client:
            return int(client.llen(queue))

    def _put(self, queue: str, message: Any, **_: Any) -> None:
        keep_s = self.reply_ttl if queue.startswith("reply.") else None
        put(self.line, queue, packed(message, queue), keep_s)

    def _brpop_start(self, timeout: float | None = None) -> None:
        """Ask for a message, or wait for the bell where there was none."""
        keys = LeaseKeys.of(self.lease_queue)
        self._in_poll = self.client.connection
        self._brpop_sent_at = monotonic()  # type: ignore[assignment]
        if self._idle:
            self.client.connection.send_command("BRPOP", keys.bell, timeout or self.brpop_timeout)
        else:
            self.client.connection.send_command("EVAL", TAKE, len(keys), *keys)

    def _brpop_read(self, **options: Any) -> bool:
        """Read the answer to what was asked; deliver a message.

        :raises Empty: there was none.
        """
        waited, self._idle = self._idle, False
        try:
            taken = self.client.parse_response(
                self.client.connection, "BRPOP" if waited else "EVAL", **options
            )
        except self.connection_errors:
            self.client.connection.disconnect()
            raise
        finally:
            self._in_poll = False
            self._flush_brpop_reauth()  # type: ignore[no-untyped-call]
        if waited:
            raise Empty
        if taken is None:
            self._idle = True
            raise Empty
        self._receive_taken(*taken)
        return True

    def _receive_taken(self, item: bytes, tag: bytes, deliveries: int) -> None:
        """Deliver what has our form, drop what has not, before anything else reads it."""
        queue = self.lease_queue
        message = unpacked(item, int(deliveries), queue)
        if message is not None and message["properties"]["delivery_tag"] == tag.decode():
            self.connection._deliver(message, queue)
            return
        SIGNS.dropped()
        LOG.warning("a message was dropped: not of this system's form")
        if tag:
            Leases(self.line, queue).acknowledge(tag.decode())

    def _get(self, queue: str, timeout: float | None = None) -> Any:
        raise NotImplementedError("messages are consumed, never fetched without a lease")


class Transport(redis.Transport):
    """The transport of these channels. Where an event loop consumes, leases last while it turns."""

    Channel = Channel

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Consume by an event loop, which extends the leases of what is in work."""
        super().register_with_event_loop(connection, loop)  # type: ignore[no-untyped-call]
        options = connection.client.transport_options
        poller: Any = self.cycle
        previous = getattr(poller, "_extend_tref", None)
        if previous is not None:
            previous.cancel()
        poller._extend_tref = loop.call_repeatedly(options["visibility_timeout"] / 3, self._extend, poller)

    def _extend(self, poller: Any) -> None:
        for channel in poller._channels:
            try:
                channel.qos.extend()
            except self.connection_errors:
                LOG.info("leases were not extended: the broker does not answer")
                return


class HardenedConnection(Connection):
    """A kombu connection to Redis over that transport."""

    def get_transport_cls(self) -> type[Transport]:
        """Return the hardened transport."""
        return Transport


class HardenedAMQP(AMQP):  # type: ignore[misc]
    """Makes a Celery app use such connections."""

    Connection = HardenedConnection
