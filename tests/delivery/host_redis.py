"""The host of a Redis broker."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis.exceptions import RedisError

from ephemeralml.broker_config import BrokerSettings
from ephemeralml.broker_config.redis.client import redis_client
from ephemeralml.broker_config.redis.lease import Line, put

from .host import HostGone, Taken


class RedisHost:
    """Has full rights on the broker, and no key.

    :param random: decides what exactly is done.
    """

    def __init__(self, settings: BrokerSettings, random: random.Random) -> None:
        self._settings = settings
        self._random = random

    def queues(self, kind: str) -> list[str]:
        """Return the names of queues that hold messages: ``jobs.`` or ``reply.``."""
        with self._client() as client:
            return [name.decode() for name in client.scan_iter(match=f"{kind}*", count=1000)]

    def take(self, kind: str, count: int) -> list[Taken]:
        """Remove up to ``count`` messages and return them with the queues they lay in."""
        taken: list[Taken] = []
        queues = self.queues(kind)
        with self._client() as client:
            for queue in queues:
                while len(taken) < count and (item := client.rpop(queue)) is not None:
                    taken.append((queue, bytes(item)))
        return taken

    def put(self, messages: list[Taken]) -> None:
        """Append messages to queues."""
        with self._client() as client:
            for queue, item in messages:
                put(Line(client.connection_pool), queue, item)

    def broken(self, item: bytes) -> bytes:
        """Return a message with one bit of its body changed, still of the right form."""
        place = self._random.randrange(69, len(item))
        return item[:place] + bytes([item[place] ^ 1 << self._random.randrange(8)]) + item[place + 1 :]

    def full(self, on: bool) -> None:
        """Let the server refuse every write for want of memory, or end that."""
        with self._client() as client:
            client.config_set("maxmemory", "1" if on else "0")

    @contextmanager
    def _client(self) -> Iterator[Any]:
        try:
            with redis_client(self._settings) as client:
                yield client
        except (RedisError, OSError):
            raise HostGone from None
