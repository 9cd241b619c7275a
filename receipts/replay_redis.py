"""Remembers the ``cti`` of receipts in Redis, so that many verifiers accept each receipt once.

The client is passed in: receipts reach no network of their own. One ``SET … NX EX``
asks and remembers in a single step on the server. The server must not evict keys
(``maxmemory-policy noeviction``) and should keep them over a restart; what it
forgets, it would accept again.
"""

from __future__ import annotations

from typing import Final, Protocol

from ..wire.errors import EndorsementsError

# Redis counts with its own clock; a key outlives the receipt's freshness by this.
DEFAULT_MARGIN_S: Final = 300
_LONGEST_S: Final = 10 * 365 * 86_400


class RedisClient(Protocol):
    """The one command that is needed; ``redis.Redis`` has it."""

    def set(self, name: str, value: bytes, *, ex: int | None = None, nx: bool = False) -> object:
        """Set a key; falsy when ``nx`` was asked for and the key was there."""


class RedisReplayStore:
    """A :class:`.replay.ReplayStore` for any number of machines.

    A key is forgotten by the server's clock, ``expires - now`` plus a margin after it was added. Judging
    archived receipts at a past ``now`` over and over needs a store that keeps for good (no maximum age).

    :param client: a connected ``redis.Redis`` (not asyncio's). :param prefix: stands before every key.
    :param margin_s: by how much a key outlives its receipt's freshness, in seconds.
    """

    def __init__(
        self, client: RedisClient, *, prefix: str = "ephemeralml:cti:", margin_s: int = DEFAULT_MARGIN_S
    ) -> None:
        self._client = client
        self._prefix = prefix
        self._margin_s = margin_s

    def add(self, cti: bytes, *, now: int, expires: int | None) -> bool:
        """Remember ``cti``; True when it was new (see :class:`.replay.ReplayStore`).

        :raises EndorsementsError: ``REPLAY_STORE_UNAVAILABLE``, retriable.
        """
        life = None if expires is None else max(1, expires - now + 1 + self._margin_s)
        if life is not None and life > _LONGEST_S:
            life = None
        try:
            added = self._client.set(self._prefix + cti.hex(), b"1", ex=life, nx=True)
        except Exception:
            # The client's own error types are unknown here, and whatever it raises, nothing was judged.
            raise EndorsementsError(
                "REPLAY_STORE_UNAVAILABLE", "the replay store cannot be used", retriable=True
            ) from None
        return bool(added)
