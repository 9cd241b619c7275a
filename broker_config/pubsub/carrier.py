"""Pub/Sub as a carrier: queues are made by operators, reply queues by their clients, nothing by workers."""

from __future__ import annotations

from typing import Any, Final

from celery.app.amqp import AMQP
from kombu import Connection

from ...wire.errors import DeliveryError
from ..carriers import Depth
from ..settings import BrokerSettings
from . import admin
from .calls import PUBLISH, Lost, calls_of
from .names import Names
from .rights import rights
from .transport import SCHEME


class PubSubCarrier:
    """See :class:`..carriers.Carrier`."""

    lost: tuple[type[BaseException], ...] = (Lost,)
    denied: tuple[type[BaseException], ...] = ()  # its calls say so themselves
    slice_s = 0.5
    amqp = AMQP

    def celery_options(self, settings: BrokerSettings, *, lease: str) -> dict[str, Any]:
        """See :meth:`..carriers.Carrier.celery_options`."""
        return {"broker_url": _url(settings), "broker_transport_options": _options(settings, lease)}

    def connection(self, settings: BrokerSettings, *, lease: str) -> Connection:
        """See :meth:`..carriers.Carrier.connection`."""
        return Connection(
            _url(settings),
            transport_options=_options(settings, lease),
            connect_timeout=settings.connect_timeout_s,
        )

    def ping(self, settings: BrokerSettings) -> None:
        """See :meth:`..carriers.Carrier.ping`: it asks what nobody needs a right to ask."""
        calls_of(settings).allowed(Names.of(settings).topic("ping"), PUBLISH)

    def depth(self, settings: BrokerSettings, pool: str) -> Depth:
        """See :meth:`..carriers.Carrier.depth`: Pub/Sub cannot say (Cloud Monitoring can, minutes late)."""
        self.ping(settings)
        return Depth(waiting=None, in_flight=None, exact=False)

    def open_replies(self, settings: BrokerSettings, name: str) -> None:
        """See :meth:`..carriers.Carrier.open_replies`."""
        admin.make_replies(settings, name)

    def leave_replies(self, settings: BrokerSettings, name: str, *, done: bool) -> None:
        """See :meth:`..carriers.Carrier.leave_replies`."""
        if done:
            admin.delete_replies(settings, name)

    def create(self, settings: BrokerSettings, pools: list[str]) -> list[str]:
        """See :meth:`..carriers.Carrier.create`."""
        try:
            return admin.create(settings, pools)
        except Lost:
            raise DeliveryError("BROKER_UNREACHABLE", "the broker cannot be reached") from None

    def rights(self, settings: BrokerSettings, role: str) -> str:
        """See :meth:`..carriers.Carrier.rights`."""
        return rights(settings, role)


CARRIER: Final = PubSubCarrier()


def _url(settings: BrokerSettings) -> str:
    return f"{SCHEME}://{Names.of(settings).project}"


def _options(settings: BrokerSettings, lease: str) -> dict[str, Any]:
    """Return kombu's options; ``jobs`` names the queue of a worker."""
    return {"settings": settings, "jobs": lease if lease.startswith("jobs.") else None}
