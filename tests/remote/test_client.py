"""The same calls as on the queue, through a gateway: everything verified, nothing lost, nothing double."""

from __future__ import annotations

import asyncio

import pytest

from ephemeralml.producer.remote import AsyncGatewayClient
from ephemeralml.producer.ticket import Ticket
from ephemeralml.wire.errors import ConfigurationError

from ..delivery.brokers import until
from ..delivery.site import right
from .stand import Stand


def test_a_batch_from_inputs_to_a_verified_statement(there: Stand) -> None:
    client = there.client()
    with there.plan(client, "whole", 100) as ticket:
        left: list[int] = []
        client.push(ticket, left.append)
        assert left[-1] == 0
        assert not ticket.pending_packs
        results = list(client.results(ticket, 60))
        assert len({result.custom_id for result in results}) == 100
        assert all(right("whole", result) for result in results)
        until(lambda: client.status(ticket).state == "completed")
        sealed = client.seal_batch(ticket)
        assert dict(sealed.verification.statement.counts)["succeeded"] == 100
        assert client.discarded == 0


def test_it_goes_on_where_it_was_left(there: Stand) -> None:
    client = there.client()
    with there.plan(client, "later", 40) as ticket:
        client.push(ticket)
        some = []
        for result in client.results(ticket, 60):
            some.append(result)
            if len(some) == 10:
                break
    path = there.site.folder / "later.ticket"
    with Ticket.load(path) as again:
        assert again.seen > 0
        fresh = there.client()
        fresh.push(again)  # nothing to do
        every = list(fresh.results(again, 60))
    assert len(every) == 40
    assert all(right("later", result) for result in every)


def test_an_upload_whose_answer_was_lost_is_taken_once(there: Stand) -> None:
    client = there.client()
    with there.plan(client, "twice", 16) as ticket:
        packs = dict(ticket.pending_packs)
        client.push(ticket)
        ticket.pending_packs.update(packs)  # as if it had been killed before it wrote the answer down
        client.push(ticket)
        assert len(list(client.results(ticket, 60))) == 16
    names = [batch.name for batch in client.api.batches(100)]
    assert names.count(client.name_of(ticket)) == 1


def test_the_same_for_asyncio(there: Stand) -> None:
    client = AsyncGatewayClient(there.client())

    async def run() -> int:
        with there.plan(client.client, "async", 24) as ticket:
            await client.push(ticket)
            found = [result async for result in client.results(ticket, 60)]
            assert (await client.status(ticket)).counts["total"] == 24
            return len([result for result in found if right("async", result)])

    assert asyncio.run(run()) == 24


def test_a_ticket_for_another_gateway_is_refused(there: Stand) -> None:
    client = there.client()
    other = there.client(there.url.replace("127.0.0.1", "localhost"))
    with there.plan(client, "other", 1) as ticket:
        for call in (other.push, other.status, other.cancel):
            with pytest.raises(ConfigurationError, match="WRONG_GATEWAY"):
                call(ticket)


def test_a_wrong_key_is_said(there: Stand) -> None:
    client = there.client()
    client.api._headers["Authorization"] = "Bearer eml_wrong"
    with pytest.raises(ConfigurationError, match="UNAUTHENTICATED"):
        client.trust_pool("minilm")
