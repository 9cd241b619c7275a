"""The SDK through a gateway for asyncio: the same calls in threads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from ...wire.job import Task
from ..batch import SealedBatch
from ..inputs import InputItem
from ..judge import JobResult
from ..stream import in_threads
from ..ticket import Ticket
from ..trust import VerifiedFleet
from .api import BatchStatus
from .client import GatewayClient


class AsyncGatewayClient:
    """The same calls for asyncio; each runs in a thread, results come as an async iterator."""

    def __init__(self, client: GatewayClient) -> None:
        self.client = client

    async def trust_pool(self, pool: str) -> VerifiedFleet:
        """See :meth:`GatewayClient.trust_pool`."""
        return await asyncio.to_thread(self.client.trust_pool, pool)

    async def plan(
        self, fleet: VerifiedFleet, items: Sequence[InputItem], ticket_path: Path, *, task: Task = "embed"
    ) -> Ticket:
        """See :meth:`GatewayClient.plan`."""
        return await asyncio.to_thread(self.client.plan, fleet, items, ticket_path, task=task)

    async def push(self, ticket: Ticket) -> None:
        """See :meth:`GatewayClient.push`."""
        await asyncio.to_thread(self.client.push, ticket)

    async def status(self, ticket: Ticket) -> BatchStatus:
        """See :meth:`GatewayClient.status`."""
        return await asyncio.to_thread(self.client.status, ticket)

    async def cancel(self, ticket: Ticket) -> BatchStatus:
        """See :meth:`GatewayClient.cancel`."""
        return await asyncio.to_thread(self.client.cancel, ticket)

    async def results(self, ticket: Ticket, timeout_s: float) -> AsyncIterator[JobResult]:
        """See :meth:`GatewayClient.results`."""
        async for result in in_threads(self.client.results(ticket, timeout_s)):
            yield result

    async def seal_batch(self, ticket: Ticket) -> SealedBatch:
        """See :meth:`GatewayClient.seal_batch`."""
        return await asyncio.to_thread(self.client.seal_batch, ticket)
