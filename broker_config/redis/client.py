"""A redis-py client for the broker's server, for blobs, health and the embedded profile."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import redis
from redis.backoff import ConstantBackoff, NoBackoff
from redis.retry import Retry

from ..settings import BrokerSettings

#: redis-py's own default waits for seconds between attempts.
RETRIES: Final = 2
RETRY_SECONDS: Final = 0.2
PROBE_SECONDS: Final = 2


def tls_options(settings: BrokerSettings) -> dict[str, Any] | None:
    """Return redis-py's TLS options: certificates are always checked."""
    if not settings.url.startswith("rediss"):
        return None
    options: dict[str, Any] = {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
    if settings.tls_ca_file is not None:
        options["ssl_ca_certs"] = str(settings.tls_ca_file)
    if settings.tls_cert_file is not None:
        options["ssl_certfile"] = str(settings.tls_cert_file)
        options["ssl_keyfile"] = str(settings.tls_key_file)
    return options


def redis_client(settings: BrokerSettings) -> redis.Redis:
    """Return a client (lazy) of the server that carries the messages."""
    options = {
        "socket_connect_timeout": settings.connect_timeout_s,
        "socket_timeout": settings.operation_timeout_s,
        "retry": Retry(ConstantBackoff(RETRY_SECONDS), RETRIES),
    }
    if settings.url.startswith("redis+socket:"):
        parts = urlsplit(settings.url)
        database = int(parse_qs(parts.query).get("virtual_host", ["0"])[0])
        return redis.Redis(unix_socket_path=parts.path, db=database, **options)  # type: ignore[arg-type]
    return redis.Redis.from_url(settings.url, **options, **(tls_options(settings) or {}))


def probe_client(socket_path: str) -> redis.Redis:
    """Return a client of a unix socket that tries once and answers at once."""
    return redis.Redis(
        unix_socket_path=socket_path, socket_timeout=PROBE_SECONDS, retry=Retry(NoBackoff(), 0)
    )
