"""SQS as a carrier: queues are made by operators, reply queues by their clients, nothing by workers."""

from __future__ import annotations

from typing import Any, Final

from celery.app.amqp import AMQP
from kombu import Connection

from ...wire.errors import DeliveryError
from ..carriers import Depth
from ..queues import jobs_queue
from ..settings import BrokerSettings
from . import queues
from .calls import Lost, calls_of
from .names import queue_name
from .rights import rights
from .transport import SCHEME, ping

_WAITING: Final = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesDelayed")
_IN_FLIGHT: Final = "ApproximateNumberOfMessagesNotVisible"


class SqsCarrier:
    """See :class:`..carriers.Carrier`."""

    lost: tuple[type[BaseException], ...] = (Lost,)
    denied: tuple[type[BaseException], ...] = ()  # its calls say so themselves
    slice_s = 0.5
    amqp = AMQP

    def celery_options(self, settings: BrokerSettings, *, lease: str) -> dict[str, Any]:
        """See :meth:`..carriers.Carrier.celery_options`."""
        return {"broker_url": f"{SCHEME}://queues", "broker_transport_options": _options(settings, lease)}

    def connection(self, settings: BrokerSettings, *, lease: str) -> Connection:
        """See :meth:`..carriers.Carrier.connection`."""
        return Connection(
            f"{SCHEME}://queues",
            transport_options=_options(settings, lease),
            connect_timeout=settings.connect_timeout_s,
        )

    def ping(self, settings: BrokerSettings) -> None:
        """See :meth:`..carriers.Carrier.ping`."""
        ping(settings)

    def depth(self, settings: BrokerSettings, pool: str) -> Depth:
        """See :meth:`..carriers.Carrier.depth`: SQS estimates, and is late by up to a minute."""
        name = queue_name(settings, jobs_queue(pool))
        found = calls_of(settings).attributes(name, [*_WAITING, _IN_FLIGHT])
        waiting = sum(int(found.get(each, 0)) for each in _WAITING)
        return Depth(waiting=waiting, in_flight=int(found.get(_IN_FLIGHT, 0)), exact=False)

    def open_replies(self, settings: BrokerSettings, name: str) -> None:
        """See :meth:`..carriers.Carrier.open_replies`."""
        queues.make_replies(settings, name)

    def leave_replies(self, settings: BrokerSettings, name: str, *, done: bool) -> None:
        """See :meth:`..carriers.Carrier.leave_replies`."""
        if done:
            queues.delete_replies(settings, name)

    def create(self, settings: BrokerSettings, pools: list[str]) -> list[str]:
        """See :meth:`..carriers.Carrier.create`."""
        try:
            return queues.create(settings, pools)
        except Lost:
            raise DeliveryError("BROKER_UNREACHABLE", "the broker cannot be reached") from None

    def rights(self, settings: BrokerSettings, role: str) -> str:
        """See :meth:`..carriers.Carrier.rights`."""
        return rights(settings, role)


CARRIER: Final = SqsCarrier()


def _options(settings: BrokerSettings, lease: str) -> dict[str, Any]:
    """Return kombu's options; ``jobs`` names the queue of a worker."""
    return {"settings": settings, "jobs": lease if lease.startswith("jobs.") else None}
