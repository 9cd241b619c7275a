"""Messages that come again: poison is found, neighbours are answered, dead letters are kept."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from ephemeralml.broker_config.blobs import put_content
from ephemeralml.broker_config.dead_letters import DeadLetter, DeadLetters
from ephemeralml.broker_config.ledger import Ledger, message_id
from ephemeralml.producer.inputs import InputItem
from ephemeralml.producer.judge import JobResult, Judge
from ephemeralml.producer.ticket import Ticket
from ephemeralml.receipts.outcome import peek_outcome
from ephemeralml.wire.encoding import encode, sha256
from ephemeralml.wire.errors import AppraisalError, DeliveryError, EngineError, Error, MalformedError
from ephemeralml.wire.job import Job, Output
from ephemeralml.wire.opening import Opener
from ephemeralml.wire.pack import (
    PackReference,
    SealedReply,
    decode_jobs,
    decode_message,
    decode_replies,
    encode_jobs,
    encode_message,
)
from ephemeralml.workers.job_task import JobTask
from ephemeralml.workers.pipeline import Pipeline

from .harness import POOL, Stand, item, run

ITEMS = [InputItem(f"id-{i}", (f"text {i}",), {"kill": True} if i == 2 else {}) for i in range(5)]


class KilledError(BaseException):
    """The worker died: nothing below the broker may handle it."""


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    made = Stand(tmp_path)
    yield made
    made.close()


class Host:
    """Carries one message to workers that may die, and replies back."""

    def __init__(self, stand: Stand, ticket: Ticket, body: bytes) -> None:
        self.stand, self.ticket, self.body = stand, ticket, body
        self.deliveries = 0
        self.replies: list[SealedReply] = []
        self.started: list[str] = []

    def deliver(self, pipeline: Pipeline, *, deadly: bool = True) -> bool:
        """Deliver once; return whether it was acknowledged."""

        def runner(jobs: Sequence[Job]) -> list[tuple[Output, ...] | EngineError]:
            self.started += [str(job.inputs[0]) for job in jobs]
            if deadly and any(job.parameters.get("kill") for job in jobs):
                raise KilledError
            return run(jobs)

        pipeline.runner = runner
        task = JobTask(pipeline, self.stand.blobs, self.publish, 1 << 20)
        self.deliveries += 1
        try:
            task(self.body, self.deliveries)
        except KilledError:
            return False
        return True

    def publish(self, reply_to: str, body: bytes) -> None:
        pack = decode_message(body)
        assert isinstance(pack, bytes)
        self.replies += decode_replies(pack)[1]

    def until_acknowledged(self, *, fresh: bool) -> int:
        """Deliver until a worker survives; return after how many deliveries."""
        pipeline = self.stand.worker()
        while not self.deliver(pipeline):
            assert self.deliveries < 20
            pipeline = self.stand.worker() if fresh else pipeline
        return self.deliveries

    def ends(self) -> dict[str, JobResult]:
        """Judge all replies as the client does, and hold it to one end for each job."""
        judge = Judge(self.ticket.head, self.stand.client.trust, Opener([self.ticket.reply_key], "result"))
        ends: dict[str, JobResult] = {}
        for reply in self.replies:
            found = judge.judge(self.ticket.jobs[reply.job_id.hex()], reply, int(self.stand.now))
            before = ends.setdefault(found.custom_id, found)
            assert (before.status, before.outcome) == (found.status, found.outcome)
        return ends


def host_of(stand: Stand, items: Sequence[InputItem] = ITEMS) -> Host:
    ticket = stand.plan(*items)
    (pack,) = ticket.pending_packs.values()
    return Host(stand, ticket, encode_message(pack))


@pytest.mark.parametrize("fresh", [True, False])
def test_a_job_that_kills_workers_ends_as_failed_and_harms_no_neighbour(stand: Stand, fresh: bool) -> None:
    host = host_of(stand)
    assert host.until_acknowledged(fresh=fresh) == 4
    ends = host.ends()
    assert {name: end.status for name, end in ends.items()} == {
        "id-0": "succeeded",
        "id-1": "succeeded",
        "id-2": "failed",
        "id-3": "succeeded",
        "id-4": "succeeded",
    }
    assert ends["id-2"].code == "ATTEMPTS_EXHAUSTED"
    assert host.started.count("text 2") == 3  # the attempts that the settings allow
    (letter,) = DeadLetters(stand.blobs, POOL).list()
    assert (letter.code, letter.deliveries, letter.jobs, letter.message) == (
        "ATTEMPTS_EXHAUSTED",
        4,
        1,
        host.body,
    )


def test_a_neighbour_runs_once_only_from_the_second_delivery_on(stand: Stand) -> None:
    host = host_of(stand)
    host.until_acknowledged(fresh=True)
    assert host.started.count("text 0") == 2
    assert host.started.count("text 4") == 2


def test_what_came_again_through_no_fault_of_its_own_is_answered(stand: Stand) -> None:
    host = host_of(stand)
    assert not host.deliver(stand.worker())
    assert host.deliver(stand.worker(), deadly=False)
    assert {end.status for end in host.ends().values()} == {"succeeded"}
    assert not list(stand.blobs.list(f"ledger/{POOL}/"))
    assert not list(DeadLetters(stand.blobs, POOL).list())


def test_a_stored_reply_is_sent_again_by_another_worker(stand: Stand) -> None:
    """A worker dies after the ledger holds a reply: the next one sends that, byte for byte."""
    host = host_of(stand)
    host.deliver(stand.worker())
    host.deliver(stand.worker())
    first = {reply.job_id: reply for reply in host.replies}
    assert len(first) == 2
    host.replies.clear()
    host.deliver(stand.worker(), deadly=False)
    again = {reply.job_id: reply for reply in host.replies}
    assert {ident: again[ident] for ident in first} == first


def test_a_requeued_dead_letter_keeps_the_ends_that_jobs_have(stand: Stand) -> None:
    host = host_of(stand)
    host.until_acknowledged(fresh=True)
    before = host.ends()
    host.deliveries = 1  # the broker counts anew; a message that comes a second time is looked up
    host.deliver(stand.worker(), deadly=False)
    assert host.ends() == before


def test_junk_in_the_ledger_makes_a_job_run_again(stand: Stand) -> None:
    host = host_of(stand)
    host.deliver(stand.worker())
    for job in host.ticket.jobs.values():
        Ledger(stand.blobs, POOL).finish(message_id(host.body), bytes.fromhex(job.job_hash), b"junk")
    host.deliver(stand.worker(), deadly=False)
    assert {end.status for end in host.ends().values()} == {"succeeded"}


def test_a_message_that_keeps_coming_back_ends(stand: Stand) -> None:
    """Whatever kills workers before a job is even started."""
    host = host_of(stand)
    host.deliveries = 30
    host.deliver(stand.worker(), deadly=False)
    assert {end.code for end in host.ends().values()} == {"ATTEMPTS_EXHAUSTED"}
    assert not host.started


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"not a message", "CBOR_TRUNCATED"),
        (encode_message(b"not a pack"), "CBOR_TRUNCATED"),
        (encode_message(PackReference(sha256(b"gone"), 4)), "BLOB_MISSING"),
    ],
)
@pytest.mark.parametrize("deliveries", [1, 2])
def test_what_nobody_can_read_is_kept_as_a_dead_letter(
    stand: Stand, body: bytes, code: str, deliveries: int
) -> None:
    JobTask(stand.pipeline, stand.blobs, lambda *_: None, 1 << 20)(body, deliveries)
    (letter,) = DeadLetters(stand.blobs, POOL).list()
    assert (letter.message, letter.code, letter.jobs) == (body, code, 0)


def test_a_tampered_blob_is_kept_too(stand: Stand) -> None:
    digest = put_content(stand.blobs, b"pack")
    stand.blobs.put(f"sha256/{digest}", b"pock")
    message = encode_message(PackReference(bytes.fromhex(digest), 4))
    JobTask(stand.pipeline, stand.blobs, lambda *_: None, 1 << 20)(message)
    assert [letter.code for letter in DeadLetters(stand.blobs, POOL).list()] == ["BLOB_TAMPERED"]


def test_a_blob_store_that_fails_keeps_the_message_on_the_queue(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bool:
        raise DeliveryError("BLOB_STORE_UNAVAILABLE")

    host = host_of(stand)
    monkeypatch.setattr(stand.blobs, "put_if_absent", fail)
    host.deliveries = 1
    with pytest.raises(DeliveryError, match="BLOB_STORE_UNAVAILABLE"):
        host.deliver(stand.worker())


@pytest.mark.parametrize("deliveries", [1, 2, 31])
def test_an_unexpected_fault_leaves_the_message_on_the_queue(
    stand: Stand, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, deliveries: int
) -> None:
    host = host_of(stand)
    pipeline = stand.worker()
    monkeypatch.setattr(pipeline, "answer", fault)
    task = JobTask(pipeline, stand.blobs, host.publish, 1 << 20)
    if deliveries < 31:
        with pytest.raises(DeliveryError, match="UNEXPECTED") as caught:
            task(host.body, deliveries)
        assert caught.value.retriable
    else:  # it ends all the same
        task(host.body, deliveries)
        assert {end.code for end in host.ends().values()} == {"ATTEMPTS_EXHAUSTED"}
    assert "secret" not in caplog.text


def test_what_stays_unexpected_becomes_a_dead_letter(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    host = host_of(stand)
    pipeline = stand.worker()
    monkeypatch.setattr(pipeline, "give_up", fault)
    JobTask(pipeline, stand.blobs, host.publish, 1 << 20)(host.body, 31)
    (letter,) = DeadLetters(stand.blobs, POOL).list()
    assert (letter.code, letter.message) == ("UNEXPECTED", host.body)


def fault(*_: object) -> None:
    raise UnicodeDecodeError("utf-8", b"secret", 0, 1, "secret")


@pytest.mark.parametrize("error", [AppraisalError("SOME_CODE", findings=()), EngineError("SOME_CODE")])
def test_no_error_of_ours_drops_a_message(stand: Stand, error: Error) -> None:
    def refuse(_: bytes) -> bool:
        raise error

    host = host_of(stand)
    JobTask(stand.pipeline, stand.blobs, host.publish, 1 << 20, seal=refuse)(host.body)
    assert [letter.code for letter in DeadLetters(stand.blobs, POOL).list()] == ["SOME_CODE"]


def test_a_job_whose_key_cannot_be_looked_for_spends_no_attempt(stand: Stand) -> None:
    """A KMS may be away for longer than a job has attempts."""

    class Away:
        def refusal(self, key_id: bytes, since: float) -> str:
            raise DeliveryError("FLEET_KEY_NOT_NOW")

        def opened(self, key_id: bytes, not_after: int) -> None: ...

    host = host_of(stand)
    for _ in range(6):
        pipeline = stand.worker()
        pipeline.keys = Away()
        with pytest.raises(DeliveryError, match="FLEET_KEY_NOT_NOW"):
            host.deliver(pipeline)
    assert host.deliver(stand.worker(), deadly=False)
    assert {end.status for end in host.ends().values()} == {"succeeded"}


def test_another_jobs_reply_in_the_ledger_is_not_sent(stand: Stand) -> None:
    host = host_of(stand)
    host.deliver(stand.worker())
    host.deliver(stand.worker())
    ident, ledger = message_id(host.body), Ledger(stand.blobs, POOL)
    keys = [bytes.fromhex(job.job_hash) for job in host.ticket.jobs.values()]
    kept = next(reply for key in keys if (reply := ledger.reply(ident, key)) is not None)
    for key in keys:
        ledger.finish(ident, key, kept)
    host.replies.clear()
    host.deliver(stand.worker(), deadly=False)
    assert {reply.job_id.hex() for reply in host.replies} == set(host.ticket.jobs)


def test_replies_that_fit_nowhere_together_go_in_parts(stand: Stand) -> None:
    host = host_of(stand)
    task = JobTask(stand.worker(), stand.blobs, host.publish, 1 << 20, largest=4096)
    task(host.body)
    assert {end.status for end in host.ends().values()} == {"succeeded"}


def test_what_can_never_be_published_is_not_tried_for_ever(stand: Stand) -> None:
    def publish(*_: object) -> None:
        raise MalformedError("BLOB_TOO_LARGE")

    host = host_of(stand)
    JobTask(stand.worker(), stand.blobs, publish, 1 << 20)(host.body)
    assert [letter.code for letter in DeadLetters(stand.blobs, POOL).list()] == ["BLOB_TOO_LARGE"]


def test_a_job_twice_in_one_pack_has_one_end(stand: Stand) -> None:
    host = host_of(stand, ITEMS[:1])
    (pack,) = host.ticket.pending_packs.values()
    pool, (job,) = decode_jobs(pack)
    replies = stand.worker().answer(encode_jobs(pool, [job, job]))
    assert len(replies) == 2
    assert replies[0] == replies[1]


def test_dead_letters_keep_their_form(stand: Stand) -> None:
    letters = DeadLetters(stand.blobs, POOL)
    letter = DeadLetter(os.urandom(40), "SOME_CODE", 7, 1_700_000_000, 2)
    letters.add(letter)
    letters.add(letter)
    assert list(letters.list()) == [letter]
    assert letters.get(letter.id) == letter
    stand.blobs.put(f"dead/{POOL}/junk", encode([1]))
    assert list(letters.list()) == [letter]
    letters.remove(letter.id)
    assert not list(letters.list())
    with pytest.raises(MalformedError):
        DeadLetter.decode(encode({1: 2}))


def test_outcomes_of_given_up_jobs_name_the_job(stand: Stand) -> None:
    host = host_of(stand)
    host.until_acknowledged(fresh=True)
    failed = [peek_outcome(reply.outcome) for reply in host.replies if reply.sealed is None]
    assert {outcome.status for outcome in failed} == {"failed"}
    assert {outcome.job_id.hex() for outcome in failed} <= set(host.ticket.jobs)


@pytest.mark.parametrize("deliveries", [1, 2])
def test_a_client_that_has_gone_keeps_nobody_elses_replies_back(stand: Stand, deliveries: int) -> None:
    tickets = [stand.plan(item(name, name)) for name in ("gone", "here")]
    packs = [pack for ticket in tickets for pack in ticket.pending_packs.values()]
    jobs = [job for pack in packs for job in decode_jobs(pack)[1]]
    sent: list[str] = []

    def publish(reply_to: str, body: bytes) -> None:
        if reply_to == tickets[0].head.reply_to:
            raise DeliveryError("REPLY_QUEUE_GONE", "its client has deleted it", retriable=False)
        sent.append(reply_to)

    task = JobTask(stand.pipeline, stand.blobs, publish, 1 << 20)
    message = encode_message(encode_jobs(POOL, jobs))
    task(message, deliveries)
    assert sent == [tickets[1].head.reply_to]
    (letter,) = DeadLetters(stand.blobs, POOL).list()
    assert (letter.code, letter.message) == ("REPLY_QUEUE_GONE", message)


def test_a_payload_beyond_the_workers_limit_is_not_even_fetched(stand: Stand) -> None:
    task = JobTask(stand.pipeline, stand.blobs, lambda *_: None, 1 << 20, max_payload=1000)
    task(encode_message(PackReference(bytes(32), 1001)))
    (letter,) = DeadLetters(stand.blobs, POOL).list()
    assert letter.code == "PAYLOAD_TOO_LARGE"


def test_an_answer_beyond_the_limit_ends_as_signed_failed(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ephemeralml.wire.job.MAX_RESPONSE_BYTES", 10)
    ticket = stand.plan(item("much"))
    (reply,) = stand.answer(ticket)
    found = stand.judge(ticket, reply.sealed)
    assert (found.status, found.code) == ("failed", "RESULT_TOO_LARGE")
