"""The host: has all rights on a broker and no key. Each broker's is in a module of its own."""

from __future__ import annotations

from typing import Protocol

#: A queue, by this package's name, and a message in the broker's own form.
Taken = tuple[str, bytes]


class HostGone(Exception):
    """What was to be done needs something that is not there just now: a queue, the broker."""


class Host(Protocol):
    """Takes messages out, breaks, copies, holds and moves them, puts them back. Raises :class:`HostGone`."""

    def queues(self, kind: str) -> list[str]:
        """Return the names of queues: those that begin with ``jobs.`` or ``reply.``."""

    def take(self, kind: str, count: int) -> list[Taken]:
        """Remove up to ``count`` messages and return them with the queues they lay in."""

    def put(self, messages: list[Taken]) -> None:
        """Append messages to queues."""

    def broken(self, item: bytes) -> bytes:
        """Return a message with a little of its body changed, still of the right form."""

    def full(self, on: bool) -> None:
        """Let the broker refuse every write, or end that; nothing where it cannot be full."""
