"""A redis-py client for the broker's server, for blobs, health and the embedded profile."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import redis

from .app import tls_options
from .settings import BrokerSettings


def redis_client(settings: BrokerSettings) -> redis.Redis:
    """Return a client (lazy) of the server that carries the messages."""
    options = {"socket_connect_timeout": settings.connect_timeout_s, "socket_timeout": 30}
    if settings.url.startswith("redis+socket:"):
        parts = urlsplit(settings.url)
        database = int(parse_qs(parts.query).get("virtual_host", ["0"])[0])
        return redis.Redis(unix_socket_path=parts.path, db=database, **options)  # type: ignore[arg-type]
    return redis.Redis.from_url(settings.url, **options, **(tls_options(settings) or {}))
