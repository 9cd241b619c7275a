"""Profiles: how a command gets a running broker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import SecretStr

from .health import ping
from .redis.embedded import EmbeddedRedis
from .settings import BrokerSettings


@contextmanager
def broker_running(settings: BrokerSettings) -> Iterator[BrokerSettings]:
    """Yield settings whose broker runs: the named one, or the embedded one started for the duration.

    :raises ConfigurationError: the embedded broker cannot be started here.
    :raises DeliveryError: ``BROKER_UNREACHABLE``: the named broker does not answer;
        ``BROKER_NOT_STARTED``: the embedded one did not start.
    """
    if settings.profile != "embedded" or settings.broker_url is not None:
        ping(settings)
        yield settings
        return
    with EmbeddedRedis(settings.state_dir, appendfsync=settings.appendfsync) as embedded:
        yield settings.model_copy(update={"broker_url": SecretStr(embedded.url)})
