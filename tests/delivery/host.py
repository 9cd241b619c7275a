"""The host of a Redis broker: takes messages out, breaks, copies, holds and moves them, puts them back."""

from __future__ import annotations

import json
import random
from typing import Any

from ephemeralml.broker_config import BrokerSettings
from ephemeralml.broker_config.redis.client import redis_client
from ephemeralml.broker_config.redis.lease import put


class Host:
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

    def take(self, kind: str, count: int) -> list[tuple[str, bytes]]:
        """Remove up to ``count`` messages and return them with the queues they lay in."""
        taken: list[tuple[str, bytes]] = []
        with self._client() as client:
            for queue in self.queues(kind):
                while len(taken) < count and (item := client.rpop(queue)) is not None:
                    taken.append((queue, bytes(item)))
        return taken

    def put(self, messages: list[tuple[str, bytes]]) -> None:
        """Append messages to queues."""
        with self._client() as client:
            for queue, item in messages:
                put(client, queue, item.decode("utf-8", "surrogateescape"))

    def broken(self, item: bytes) -> bytes:
        """Return a message with one character of its body changed, still of the right form."""
        message = json.loads(item)
        body = message["body"]
        place = self._random.randrange(len(body))
        other = "A" if body[place] != "A" else "B"
        return json.dumps({**message, "body": body[:place] + other + body[place + 1 :]}).encode()

    def full(self, on: bool) -> None:
        """Let the server refuse every write for want of memory, or end that."""
        with self._client() as client:
            client.config_set("maxmemory", "1" if on else "0")

    def _client(self) -> Any:
        return redis_client(self._settings)
