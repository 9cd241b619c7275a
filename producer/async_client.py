"""The SDK for asyncio: the same calls in threads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from ..wire.job import Task
from .client import Client
from .inputs import InputItem
from .judge import JobResult
from .stream import Delta, in_threads
from .ticket import Ticket
from .trust import VerifiedFleet


class AsyncClient:
    """The same calls for asyncio; each runs in a thread, results come as an async iterator."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def trust_pool(self, pool: str) -> VerifiedFleet:
        """See :meth:`Client.trust_pool`."""
        return await asyncio.to_thread(self.client.trust_pool, pool)

    async def plan(
        self, fleet: VerifiedFleet, items: Sequence[InputItem], ticket_path: Path, *, task: Task = "embed"
    ) -> Ticket:
        """See :meth:`Client.plan`."""
        return await asyncio.to_thread(self.client.plan, fleet, items, ticket_path, task=task)

    async def push(self, ticket: Ticket) -> None:
        """See :meth:`Client.push`."""
        await asyncio.to_thread(self.client.push, ticket)

    async def results(self, ticket: Ticket, timeout_s: float) -> AsyncIterator[JobResult]:
        """See :meth:`Client.results`."""
        iterator = self.client.results(ticket, timeout_s)
        while (result := await asyncio.to_thread(next, iterator, None)) is not None:
            yield result

    async def stream(self, ticket: Ticket, timeout_s: float) -> AsyncIterator[Delta | JobResult]:
        """See :meth:`Client.stream`."""
        async for event in in_threads(self.client.stream(ticket, timeout_s)):
            yield event
