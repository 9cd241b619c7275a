"""What holds on every broker: each accepted job has one verified end, whatever happens to workers."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from pathlib import Path

from ephemeralml.broker_config.submit import Submitter
from ephemeralml.producer.client import Client
from ephemeralml.producer.judge import JobResult
from ephemeralml.producer.lab import POOL
from ephemeralml.producer.ticket import Ticket
from ephemeralml.wire.pack import encode_message

from .brokers import until
from .site import Site, right

PATIENCE_S = 60


def submitted(place: Site, client: Client, name: str, count: int, *, pack_jobs: int = 8) -> Ticket:
    ticket = place.plan(client, name, count, pack_jobs=pack_jobs)
    client.push(ticket)
    return ticket


def all_right(name: str, results: list[JobResult], count: int) -> bool:
    numbers = sorted(int(result.custom_id) for result in results)
    return numbers == list(range(count)) and all(right(name, result) for result in results)


def test_two_workers_answer_every_job_once(place: Site) -> None:
    place.worker()
    place.worker().ready()
    client = place.client()
    with submitted(place, client, "all", 120) as ticket:
        assert all_right("all", list(client.results(ticket, PATIENCE_S)), 120)
    assert client.discarded == 0


def test_sigkill_in_the_middle_loses_and_doubles_nothing(place: Site) -> None:
    victim, _ = place.worker("--concurrency", "1"), place.worker("--concurrency", "1")
    victim.ready()
    client = place.client()
    results = []
    with submitted(place, client, "killed", 120, pack_jobs=4) as ticket:
        for result in client.results(ticket, PATIENCE_S):
            results.append(result)
            if len(results) == 12:
                victim.signal(signal.SIGKILL)
    assert all_right("killed", results, 120)


def test_sigterm_finishes_what_is_in_work_and_leaves_the_rest(place: Site) -> None:
    first = place.worker().ready()
    client = place.client()
    results = []
    with submitted(place, client, "drained", 60, pack_jobs=4) as ticket:
        for result in client.results(ticket, PATIENCE_S):
            results.append(result)
            if len(results) == 8:
                first.signal(signal.SIGTERM)
                first.ended()
                assert "keys dropped" in first.text
                place.worker()
    assert all_right("drained", results, 60)


def test_drain_ends_when_the_queue_is_empty(place: Site) -> None:
    first = place.worker().ready()
    client = place.client()
    ticket = place.plan(client, "last", 40)
    first.signal(signal.SIGTERM)
    first.ended()
    with ticket:
        client.push(ticket)
        place.worker("--drain").ready().ended()
        assert all_right("last", list(client.results(ticket, PATIENCE_S)), 40)


def test_messages_that_are_none_of_ours_harm_nobody(place: Site) -> None:
    place.worker().ready()
    client = place.client()
    with submitted(place, client, "before", 8) as before, Submitter(place.broker.settings) as submitter:
        for junk in (b"", b"not a pack", encode_message(b"\xa0"), b"\xff" * 1000):
            submitter.submit(POOL, junk)
        with submitted(place, client, "after", 8) as after:
            assert all_right("before", list(client.results(before, PATIENCE_S)), 8)
            assert all_right("after", list(client.results(after, PATIENCE_S)), 8)


def test_messages_delivered_twice_are_answered_alike(place: Site) -> None:
    place.worker()
    place.worker().ready()
    client = place.client()
    with place.plan(client, "twice", 24) as ticket:
        packs = list(ticket.pending_packs.values())
        client.push(ticket)
        with Submitter(place.broker.settings) as submitter:
            for pack in reversed(packs):
                submitter.submit(POOL, encode_message(pack))
        assert all_right("twice", list(client.results(ticket, PATIENCE_S)), 24)


def test_a_client_that_comes_back_finds_its_replies(place: Site) -> None:
    place.worker().ready()
    with submitted(place, place.client(), "away", 24):
        pass
    with Ticket.load(place.folder / "away.ticket") as ticket:
        assert all_right("away", list(place.client().results(ticket, PATIENCE_S)), 24)


def test_a_pack_beyond_the_inline_limit_travels_through_the_blob_store(place: Site, tmp_path: Path) -> None:
    place.more["EPHEMERALML_INLINE_LIMIT_BYTES"] = "2048"
    place.worker().ready()
    with ExitStack() as stack:
        client = place.client()
        client.broker = place.broker.settings.model_copy(update={"inline_limit_bytes": 2048})
        ticket = stack.enter_context(submitted(place, client, "large", 32, pack_jobs=16))
        assert all_right("large", list(client.results(ticket, PATIENCE_S)), 32)


def test_a_worker_that_is_paused_beyond_its_lease_changes_nothing(place: Site) -> None:
    paused = place.worker("--concurrency", "1").ready()
    client = place.client()
    with submitted(place, client, "paused", 60, pack_jobs=4) as ticket:
        results = []
        for result in client.results(ticket, PATIENCE_S):
            results.append(result)
            if len(results) == 4:
                paused.signal(signal.SIGSTOP)
                place.worker("--concurrency", "1")
        paused.signal(signal.SIGCONT)
        assert all_right("paused", results, 60)
    paused.signal(signal.SIGTERM)
    until(lambda: not paused.alive)
