"""Carriers: what each kind of broker does in its own way, behind one Protocol.

Everything above (Celery app, submission, reply queues, health, commands) asks the carrier of
the profile and knows no broker by name. A carrier's libraries are imported with it, so a
client needs those of its own broker only.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final, Protocol, cast

from kombu import Connection

from ..wire.errors import ConfigurationError, DeliveryError
from .settings import BrokerSettings, Profile

#: Module of each profile's carrier below this package, and the extra that brings its libraries.
CARRIERS: Final[dict[Profile, tuple[str, str]]] = {
    "embedded": (".redis.carrier", "client"),
    "redis": (".redis.carrier", "client"),
    "sqs": (".sqs.carrier", "sqs"),
    "pubsub": (".pubsub.carrier", "pubsub"),
}


@dataclass(frozen=True, slots=True)
class Depth:
    """How full a pool's queue is, in messages.

    :param waiting: not with any consumer; None where the broker cannot say.
    :param in_flight: with a consumer and not acknowledged; None where the broker cannot say.
    :param exact: False where the broker's numbers are estimates.
    """

    waiting: int | None
    in_flight: int | None
    exact: bool = True


class Carrier(Protocol):
    """One kind of broker.

    Queues are meant by this package's names (``jobs.<pool>``, ``reply.<32 hexadecimal digits>``);
    a carrier translates them. What its libraries raise when the broker cannot be used is
    :attr:`lost`; all else that leaves a method is of the error tree.

    A transport of a carrier takes and leases a message in one step, counts deliveries into the header
    :data:`.envelope.DELIVERIES`, drops what :func:`.envelope.incoming` refuses before anything reads
    it, and extends the leases of what is in work until ``max_lease_s``.
    """

    #: Errors of the client libraries that mean: the broker cannot be used now.
    lost: tuple[type[BaseException], ...]
    #: Those of :attr:`lost` that mean: not by this user, or not with these rights.
    denied: tuple[type[BaseException], ...]
    #: Seconds of one wait for messages, below which a consumer cannot notice what else has to be done.
    slice_s: float

    @property
    def amqp(self) -> type[Any]:
        """Celery's AMQP class that makes an app use this carrier's connections."""

    def celery_options(self, settings: BrokerSettings, *, lease: str) -> dict[str, Any]:
        """Return ``broker_url``, ``broker_transport_options`` and the like for Celery.

        :param lease: the queue whose messages a consumer holds, or ``none``.
        """

    def connection(self, settings: BrokerSettings, *, lease: str) -> Connection:
        """Return a kombu connection (lazy)."""

    def ping(self, settings: BrokerSettings) -> None:
        """Return when the broker answers; raises what is in :attr:`lost` otherwise."""

    def depth(self, settings: BrokerSettings, pool: str) -> Depth:
        """Return how full a pool's queue is; raises what is in :attr:`lost`."""

    def open_replies(self, settings: BrokerSettings, name: str) -> None:
        """Make a client's reply queue where the broker wants it made; harmless when it is there."""

    def leave_replies(self, settings: BrokerSettings, name: str, *, done: bool) -> None:
        """A consumer of a reply queue has closed its connection.

        :param done: no further reply is expected: what the broker keeps for the queue may go.
        """

    def create(self, settings: BrokerSettings, pools: list[str]) -> list[str]:
        """Make the queues of pools and return a line per thing that exists now; idempotent.

        :raises ConfigurationError, DeliveryError: why it could not be made.
        """

    def rights(self, settings: BrokerSettings, role: str) -> str:
        """Return the least rights that a role needs, in the broker's own language.

        :param role: ``worker``, ``client``, ``relay`` or ``operator``.
        """


def unusable(carrier: Carrier, error: BaseException) -> DeliveryError:
    """Return what :attr:`Carrier.lost` means to a caller: ``BROKER_DENIED`` or ``BROKER_UNREACHABLE``.

    :param error: as it was caught; kombu wraps some.
    """
    if isinstance(error, carrier.denied) or isinstance(error.__cause__, carrier.denied):
        return DeliveryError("BROKER_DENIED", "the broker allows this user less than its role needs")
    return DeliveryError("BROKER_UNREACHABLE", "the broker cannot be reached")


def carrier_of(settings: BrokerSettings) -> Carrier:
    """Return the carrier of a profile.

    :raises ConfigurationError: ``EXTRA_MISSING``: its libraries are not installed.
    """
    module, extra = CARRIERS[settings.profile]
    try:
        return cast("Carrier", import_module(module, __package__).CARRIER)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("ephemeralml"):
            raise
        raise ConfigurationError(
            "EXTRA_MISSING",
            f"the profile {settings.profile} needs more libraries: pip install 'ephemeralml[{extra}]'",
        ) from None
