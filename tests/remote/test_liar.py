"""A gateway that lies: whatever it shows, nothing is believed that a worker did not sign for us."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import cast

import pytest

from ephemeralml.producer.lab import POOL
from ephemeralml.producer.remote import GatewayApi, GatewayClient
from ephemeralml.producer.remote.api import BatchStatus
from ephemeralml.producer.ticket import Ticket
from ephemeralml.wire.encoding import decode, encode
from ephemeralml.wire.errors import AppraisalError, DeliveryError, Error, MalformedError
from ephemeralml.wire.pack import SealedReply, decode_replies, encode_replies
from ephemeralml.wire.sequence import SequenceSplitter

from ..delivery.brokers import until
from ..delivery.site import right
from .stand import Stand

JOBS = 12
Lie = Callable[[list[SealedReply]], list[SealedReply]]


class Liar(GatewayApi):
    """Tells the truth but for what a test changes."""

    lie: Lie = staticmethod(lambda replies: replies)
    first: Callable[[int], int] = staticmethod(lambda first: first)
    blobs: Callable[[str, bytes], bytes] = staticmethod(lambda name, data: data)
    tail = b""

    def results(self, name: str, seen: int, wait_s: int = 1) -> Iterator[bytes]:
        """Change the replies of every pack."""
        splitter = SequenceSplitter(1 << 27)
        for piece in super().results(name, seen, wait_s):
            for item in splitter.feed(piece):
                first, pack = cast("tuple[int, bytes]", decode(item))
                replies = self.lie(list(decode_replies(pack)[1]))
                yield encode([self.first(first), encode_replies(POOL, replies)])
        yield self.tail

    def blob(self, name: str) -> bytes:
        """Change a blob."""
        return self.blobs(name, super().blob(name))


def liar(there: Stand) -> tuple[Liar, GatewayClient]:
    """Return a lying gateway and its client."""
    client = there.client()
    api = Liar(there.url, there.key)
    client.api = api
    client.trust.blobs._api = api  # type: ignore[attr-defined]
    return api, client


def swapped(replies: list[SealedReply]) -> list[SealedReply]:
    """Give each job the result of the next."""
    others = replies[1:] + replies[:1]
    return [
        replace(reply, header=other.header, sealed=other.sealed)
        for reply, other in zip(replies, others, strict=True)
    ]


def relabelled(replies: list[SealedReply]) -> list[SealedReply]:
    """Say that each reply is another job's."""
    others = replies[1:] + replies[:1]
    return [replace(reply, job_id=other.job_id) for reply, other in zip(replies, others, strict=True)]


def flipped(replies: list[SealedReply]) -> list[SealedReply]:
    """Change a bit of every outcome."""
    return [replace(reply, outcome=reply.outcome[:-1] + bytes([reply.outcome[-1] ^ 1])) for reply in replies]


def bare(replies: list[SealedReply]) -> list[SealedReply]:
    """Keep the results back."""
    return [replace(reply, header=None, sealed=None) for reply in replies]


@pytest.mark.parametrize("lie", [swapped, relabelled, flipped, bare])
def test_changed_replies_are_discarded_and_the_real_ones_still_count(there: Stand, lie: Lie) -> None:
    api, client = liar(there)
    with there.plan(client, f"liar-{lie.__name__}", JOBS) as ticket:
        client.push(ticket)
        until(lambda: client.status(ticket).ended)
        api.lie = lie
        assert list(client.results(ticket, 3)) == []
        assert client.discarded >= JOBS
        assert len(ticket.missing) == JOBS
        api.lie = lambda replies: replies
        results = list(client.results(ticket, 30))
        assert len(results) == JOBS
        assert all(right(f"liar-{lie.__name__}", result) for result in results)


def test_what_is_repeated_counts_once_and_what_is_dropped_is_missed(there: Stand) -> None:
    api, client = liar(there)
    with there.plan(client, "repeated", JOBS) as ticket:
        client.push(ticket)
        until(lambda: client.status(ticket).ended)
        dropped: set[bytes] = set()

        def lie(replies: list[SealedReply]) -> list[SealedReply]:
            dropped.update(reply.job_id for reply in replies[:1])
            kept = [reply for reply in replies if reply.job_id not in dropped]
            return kept * 2

        api.lie = lie
        results = list(client.results(ticket, 3))
        assert len(results) == len({result.job_id for result in results}) == JOBS - len(dropped)
        assert {bytes.fromhex(job) for job in ticket.missing} == dropped
        api.lie = lambda replies: replies
        assert {result.job_id for result in client.results(ticket, 30)} >= dropped
        assert not ticket.missing


def test_replies_of_an_earlier_batch_count_nothing(there: Stand) -> None:
    api, client = liar(there)
    earlier: list[SealedReply] = []

    def note(replies: list[SealedReply]) -> list[SealedReply]:
        earlier.extend(replies)
        return replies

    api.lie = note
    with there.plan(client, "earlier", JOBS) as ticket:
        client.push(ticket)
        assert len(list(client.results(ticket, 30))) == JOBS
    with there.plan(client, "replayed", JOBS) as ticket:
        client.push(ticket)
        until(lambda: client.status(ticket).ended)
        api.lie = lambda replies: earlier[: len(replies)]
        assert list(client.results(ticket, 3)) == []
        assert len(ticket.missing) == JOBS
        # As the replies of this batch's own jobs, they do not verify either.
        api.lie = lambda replies: [
            replace(old, job_id=new.job_id) for old, new in zip(earlier, replies, strict=False)
        ]
        assert list(client.results(ticket, 3)) == []
        assert client.discarded >= JOBS


@pytest.mark.parametrize("tail", [b"\xff", encode([0]), encode([-1, b""]), encode(["x", b"y"])])
def test_a_stream_of_another_form_is_one_error(there: Stand, tail: bytes) -> None:
    api, client = liar(there)
    api.tail = tail
    with there.plan(client, f"form-{tail.hex()}", 2) as ticket:
        client.push(ticket)
        with pytest.raises(MalformedError):
            list(client.results(ticket, 30))
        api.tail = b""
        list(client.results(ticket, 30))
        assert not ticket.missing


def test_numbers_that_leave_results_out_are_noticed(there: Stand) -> None:
    api, client = liar(there)
    with there.plan(client, "numbers", 2) as ticket:
        client.push(ticket)
        api.first = lambda first: first + 5
        with pytest.raises(MalformedError, match="BAD_ANSWER"):
            list(client.results(ticket, 30))
        api.first = lambda first: first
        assert len(list(client.results(ticket, 30))) == 2


def test_substituted_announcements_are_never_sealed_to(there: Stand) -> None:
    api, client = liar(there)
    # Somewhere within the body, which the evidence vouches for: a key, for example.
    api.blobs = lambda name, data: data[:200] + bytes([data[200] ^ 1]) + data[201:]
    with pytest.raises(AppraisalError, match="NO_TRUSTED_WORKER"):
        client.trust_pool(POOL)


def test_a_statement_of_another_batch_is_refused(there: Stand) -> None:
    api, client = liar(there)
    statements: list[bytes] = []
    for name in ("stated", "other"):
        with there.plan(client, name, JOBS) as ticket:
            client.push(ticket)
            assert len(list(client.results(ticket, 30))) == JOBS
            until(lambda ticket=ticket: client.status(ticket).state == "completed")  # type: ignore[misc]
            if statements:
                api.statement = lambda name: statements[0]  # type: ignore[method-assign]
                with pytest.raises(Error):
                    client.seal_batch(ticket)
            else:
                statements.append(client.seal_batch(ticket).statement)


def test_a_gateway_that_only_claims_to_be_done_leaves_jobs_missing(there: Stand) -> None:
    api, client = liar(there)
    with there.plan(client, "claims", 4) as ticket:
        api.upload = lambda name, body: BatchStatus(name, POOL, "completed", None, {}, 0, 0)  # type: ignore[method-assign]
        client.push(ticket)
        with pytest.raises(DeliveryError, match="BATCH_NOT_FOUND"):
            list(client.results(ticket, 5))
        assert len(ticket.missing) == 4
    with Ticket.load(there.site.folder / "claims.ticket") as again:
        assert len(again.missing) == 4
